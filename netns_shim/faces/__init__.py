# SPDX-License-Identifier: Apache-2.0
"""The ways to be called beside that of a CNI plugin: by netavark, and in its place."""
