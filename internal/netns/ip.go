//go:build linux

package netns

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// ip runs iproute2's ip in a namespace, or for "" in this one.
func ip(namespace string, args ...string) error {
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	return run("", "ip", args...)
}

// run runs a command to its end.
func run(stdin, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C") // Delay reads a message
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
