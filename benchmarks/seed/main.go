// SPDX-License-Identifier: Apache-2.0

// seed runs a CNI plugin in a shared network namespace, with the code that Podman has for that:
//
//	seed STATE-DIRECTORY PLUGIN
//
// The environment and the configuration on stdin are those of the plugin; CNI_COMMAND is ADD or DEL.
// What Podman does before and after, such as reading its own configuration, is not in it.
// benchmarks/seed/build builds it, inside a copy of the sources of Podman: the package is internal.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containers/common/libnetwork/internal/rootlessnetns"
	"github.com/containers/common/pkg/config"
	"github.com/containers/storage/pkg/lockfile"
)

// call attaches or detaches, as Setup and Teardown of Podman's backends do.
func call(directory, plugin, verb string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	// A backend has one lock, and holds it from before the namespace is looked for until after the
	// references are counted, so also while the plugin runs: neither of these has a lock of its own.
	lock, err := lockfile.GetLockFile(filepath.Join(directory, "cni.lock"))
	if err != nil {
		return err
	}
	lock.Lock()
	defer lock.Unlock()

	// The uplink is Podman's default, found in PATH. For CNI /var/lib/cni is mounted besides /run.
	conf := &config.Config{}
	conf.Network.DefaultRootlessNetworkCmd = "pasta"
	netns, err := rootlessnetns.New(directory, rootlessnetns.CNI, conf)
	if err != nil {
		return err
	}

	// The answer is read to its end, as libcni does, and passed on with the references counted.
	var answer bytes.Buffer
	run := func() error {
		command := exec.Command(plugin)
		command.Stdin, command.Stdout, command.Stderr = os.Stdin, &answer, os.Stderr
		return command.Run()
	}
	// A container in one network is one reference; without any, namespace and uplink are removed.
	switch verb {
	case "ADD":
		err = netns.Setup(1, run)
	case "DEL":
		err = netns.Teardown(1, run)
	default:
		err = fmt.Errorf("CNI_COMMAND: %q is neither ADD nor DEL", verb)
	}
	_, failure := os.Stdout.Write(answer.Bytes())
	return errors.Join(err, failure)
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: seed STATE-DIRECTORY PLUGIN")
		os.Exit(2)
	}
	if err := call(os.Args[1], os.Args[2], os.Getenv("CNI_COMMAND")); err != nil {
		fmt.Fprintln(os.Stderr, "seed:", err)
		os.Exit(1)
	}
}
