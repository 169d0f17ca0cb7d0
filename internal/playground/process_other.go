//go:build !linux

package main

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// attributes put a process into a group of its own, so that Ctrl-C reaches the
// playground alone and it can stop them in order. Only Linux can also end it
// with the playground; elsewhere the next start finds what a killed playground
// left.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// startOf is the second in which the process started.
func startOf(pid int) (string, error) {
	out, err := exec.Command("ps", "-o", "lstart=", "-p", strconv.Itoa(pid)).Output()
	start := strings.TrimSpace(string(out))
	if err != nil || start == "" {
		return "", fmt.Errorf("finding the start of process %d: no such process", pid)
	}
	return start, nil
}
