# SPDX-License-Identifier: Apache-2.0
"""Names of containers: what each attachment is called, and the server that others ask."""
