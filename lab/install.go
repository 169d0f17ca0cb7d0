//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// packages are what the stack is made of. Recommended ones are not needed.
var packages = []string{
	"puppet-agent", "puppetserver", "puppetdb", "puppet-terminus-puppetdb", "postgresql", "nsd",
	"iproute2", "bind9-dnsutils", "curl", "openssl", "util-linux",
}

// policy is asked by packages whether they may start their services.
const policy = "/usr/sbin/policy-rc.d"

// install installs packages that are not there. Their services are not started.
func install() error {
	missing, err := notInstalled()
	if err != nil || len(missing) == 0 {
		return err
	}
	fmt.Printf("installing %s\n", strings.Join(missing, " "))
	began := time.Now()
	if _, err := os.Stat(policy); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
			return err
		}
		defer os.Remove(policy)
	}
	for _, args := range [][]string{
		{"apt-get", "update", "-q"},
		append([]string{"apt-get", "install", "-y", "-q", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	fmt.Printf("  %-52s %6.1f s\n", "installed", time.Since(began).Seconds())
	return nil
}

func notInstalled() (missing []string, err error) {
	for _, name := range packages {
		out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Abbrev}", name).Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return nil, fmt.Errorf("the lab needs Debian: %w", err)
		}
		if strings.TrimSpace(string(out)) != "ii" {
			missing = append(missing, name)
		}
	}
	return missing, nil
}

// versions are the packages' that matter.
func versions() string {
	var b strings.Builder
	for _, name := range packages[:6] {
		if name == "postgresql" {
			name = "postgresql-15"
		}
		out, _ := exec.Command("dpkg-query", "-W", "-f", "${Version}", name).Output() // "" is seen
		fmt.Fprintf(&b, "%s %s, ", name, out)
	}
	return strings.TrimSuffix(b.String(), ", ")
}
