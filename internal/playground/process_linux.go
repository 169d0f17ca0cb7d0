package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// attributes put a process into a group of its own, so that Ctrl-C reaches the
// playground alone and it can stop them in order; and end it with the
// playground, even when that is killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// startOf is the boot and the clock tick in which the process started, which no
// other process with the same pid shares.
func startOf(pid int) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("finding the start of process %d: %w", pid, err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("finding the start of process %d: %w", pid, err)
	}
	// The second field, the program's name in parentheses, may hold anything;
	// what follows it does not. starttime is field 22 of proc(5).
	_, rest, _ := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(" "))
	fields := strings.Fields(string(rest))
	if len(fields) < 20 {
		return "", fmt.Errorf("finding the start of process %d: %q is not proc(5)'s stat", pid, stat)
	}
	if fields[0] == "Z" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return strings.TrimSpace(string(boot)) + "/" + fields[19], nil
}
