// SPDX-License-Identifier: Apache-2.0

// cnidrive calls a network configuration list through libcni, as a container runtime would:
//
//	cnidrive add|check|del NETWORK NETNS
//
// The environment is cnitool's: NETCONFPATH, CNI_PATH, CNI_IFNAME, CNI_ARGS, CAP_ARGS; and
// CNI_CONTAINERID for a container ID other than cnitool's hash of NETNS.
// tests/bench.py builds it, against the libcni that Debian packages.
package main

import (
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
)

func getenv(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

// runtimeConf is what the runtime knows about one attachment.
func runtimeConf(netns string) (*libcni.RuntimeConf, error) {
	rt := &libcni.RuntimeConf{
		ContainerID: getenv("CNI_CONTAINERID", fmt.Sprintf("cnitool-%x", sha512.Sum512([]byte(netns)))[:28]),
		NetNS:       netns,
		IfName:      getenv("CNI_IFNAME", "eth0"),
	}
	if text := os.Getenv("CAP_ARGS"); text != "" {
		if err := json.Unmarshal([]byte(text), &rt.CapabilityArgs); err != nil {
			return nil, fmt.Errorf("CAP_ARGS: %w", err)
		}
	}
	if text := os.Getenv("CNI_ARGS"); text != "" {
		for _, pair := range strings.Split(text, ";") {
			key, value, found := strings.Cut(pair, "=")
			if !found {
				return nil, fmt.Errorf("CNI_ARGS: %q is not KEY=VALUE", pair)
			}
			rt.Args = append(rt.Args, [2]string{key, value})
		}
	}
	return rt, nil
}

func drive(verb, network, netns string) error {
	list, err := libcni.LoadConfList(getenv("NETCONFPATH", "/etc/cni/net.d"), network)
	if err != nil {
		return err
	}
	netns, err = filepath.Abs(netns)
	if err != nil {
		return err
	}
	rt, err := runtimeConf(netns)
	if err != nil {
		return err
	}

	cni := libcni.NewCNIConfig(filepath.SplitList(os.Getenv("CNI_PATH")), nil)
	switch verb {
	case "add":
		result, err := cni.AddNetworkList(context.Background(), list, rt)
		if err != nil {
			return err
		}
		return result.Print()
	case "check":
		return cni.CheckNetworkList(context.Background(), list, rt)
	case "del":
		return cni.DelNetworkList(context.Background(), list, rt)
	}
	return fmt.Errorf("%q is none of add, check, del", verb)
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: cnidrive add|check|del NETWORK NETNS")
		os.Exit(2)
	}
	if err := drive(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "cnidrive:", err)
		os.Exit(1)
	}
}
