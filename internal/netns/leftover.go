//go:build linux

package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// runDir is where iproute2 keeps the names of namespaces.
	runDir = "/run/netns"
	// ours begins the name of each namespace: puppetsrv-PID-START-RANDOM-HOST.
	ours = "puppetsrv-"
	// dying is how long processes have to end after SIGKILL.
	dying = 10 * time.Second
)

// startOf is the clock tick of the boot in which a process started: no other one
// with the same id has it.
func startOf(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("finding the start of process %d: %w", pid, err)
	}
	// The second field, the program's name in parentheses, may hold anything;
	// what follows it does not. starttime is field 22 of proc(5).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("finding the start of process %d: %q is not proc(5)'s stat", pid, stat)
	}
	if fields[0] == "Z" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[19], nil
}

// sweep removes the namespaces whose owners are gone, with the processes in them. That
// an owner is gone is seen in /proc: who shares /run/netns must share the process ids.
func sweep() error {
	entries, err := os.ReadDir(runDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the first one makes it
	}
	if err != nil {
		return err
	}
	var all []error
	for _, e := range entries {
		fields := strings.SplitN(strings.TrimPrefix(e.Name(), ours), "-", 3)
		if !strings.HasPrefix(e.Name(), ours) || len(fields) != 3 {
			continue
		}
		pid, err := strconv.Atoi(fields[0])
		if err != nil {
			continue
		}
		if start, err := startOf(pid); err == nil && start == fields[1] {
			continue
		}
		all = append(all, remove(e.Name()))
	}
	return errors.Join(all...)
}

// remove removes the namespaces whose names begin with prefix, and ends the processes
// in them first: they would keep a namespace without a name alive. That another
// process removes the same ones is no error.
func remove(prefix string) error {
	paths, err := filepath.Glob(filepath.Join(runDir, prefix+"*"))
	if err != nil {
		return err
	}
	if err := kill(paths); err != nil {
		return err
	}
	var all []error
	for _, path := range paths {
		if err := ip("", "netns", "delete", filepath.Base(path)); err != nil {
			if _, e := os.Lstat(path); !errors.Is(e, fs.ErrNotExist) {
				all = append(all, err)
			}
		}
	}
	return errors.Join(all...)
}

// kill ends every process in the namespaces and waits until there is none, and until
// whatever they held is given up.
func kill(paths []string) error {
	var namespaces []os.FileInfo
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			namespaces = append(namespaces, info)
		}
	}
	deadline := time.Now().Add(dying)
	for {
		found, err := killOnce(namespaces, deadline)
		if err != nil {
			return fmt.Errorf("in %v: %w", paths, err)
		}
		if found == 0 {
			return nil
		}
		if time.Now().After(deadline) { // they start others
			return fmt.Errorf("%d processes do not end in %v", found, paths)
		}
	}
}

// killOnce kills the processes in the namespaces, waits for their ends, and returns how
// many there were: one of them may have started another one before.
func killOnce(namespaces []os.FileInfo, deadline time.Time) (found int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var killed []unix.PollFd
	defer func() {
		for _, p := range killed {
			_ = unix.Close(int(p.Fd))
		}
	}()
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !inside(pid, namespaces) {
			continue
		}
		// The handle stands for this very process, also if its id goes to another one
		// before the signal; so look again.
		p, err := unix.PidfdOpen(pid, 0)
		switch there := inside(pid, namespaces); {
		case err != nil && there:
			return 0, fmt.Errorf("killing process %d: %w", pid, err)
		case err != nil:
			continue
		case !there:
			_ = unix.Close(p)
			continue
		}
		killed = append(killed, unix.PollFd{Fd: int32(p), Events: unix.POLLIN})
		_ = unix.PidfdSendSignal(p, unix.SIGKILL, nil, 0) // it may have ended
	}
	for _, p := range killed {
		if err := ended(p, deadline); err != nil {
			return 0, err
		}
	}
	return len(killed), nil
}

// ended waits for the end of all threads of a process. Its first thread may be out of its
// namespaces while another one still has its files open, and locked.
func ended(p unix.PollFd, deadline time.Time) error {
	for {
		n, err := unix.Poll([]unix.PollFd{p}, max(0, int(time.Until(deadline).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("waiting for the end of a process: %w", err)
		case n == 0:
			return fmt.Errorf("a process has not ended %v after SIGKILL", dying)
		}
		return nil
	}
}

// inside reports whether a process is in one of the namespaces. One that has ended and
// waits to be reaped is in none.
func inside(pid int, namespaces []os.FileInfo) bool {
	info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return false
	}
	for _, n := range namespaces {
		if os.SameFile(info, n) {
			return true
		}
	}
	return false
}
