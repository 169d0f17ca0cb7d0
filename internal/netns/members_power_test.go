//go:build linux

package netns_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/netns"
)

// killHosts kills every process of hosts, as a power cut does, and waits until there is
// none. The tests' own process is on no host but for moments.
func killHosts(all []*netns.Host) error {
	var namespaces []os.FileInfo
	for _, h := range all {
		info, err := os.Stat(filepath.Join("/run/netns", h.Namespace()))
		if err != nil {
			return err
		}
		namespaces = append(namespaces, info)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		pids, err := processesIn(namespaces)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not end", pids)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
}

// processesIn are the processes in network namespaces. One that waits to be reaped is in
// none.
func processesIn(namespaces []os.FileInfo) (pids []int, err error) {
	found, err := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, path := range found {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		if err != nil || pid == os.Getpid() {
			continue
		}
		for _, n := range namespaces {
			if os.SameFile(info, n) {
				pids = append(pids, pid)
			}
		}
	}
	return pids, err
}
