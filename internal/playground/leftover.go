package main

import (
	"fmt"
	"io"
	"syscall"
	"time"
)

// clearLeftover removes what a playground left that was killed itself: its
// processes, where the system did not end them with it, and its files. A
// process is signalled only if its pid and its start are those written down;
// any other process that has the pid today is somebody else's.
func (r *rundir) clearLeftover(pid int, out io.Writer) error {
	s, err := readState(r.dir)
	if err != nil {
		fmt.Fprintf(out, "%v\n", err)
	}
	for _, p := range s.Processes {
		if !p.runs() {
			continue
		}
		fmt.Fprintf(out, "%s (pid %d) of the left-over playground still runs: killing it\n", p.Name, p.PID)
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
			return fmt.Errorf("killing left-over %s (pid %d): %w", p.Name, p.PID, err)
		}
		for deadline := time.Now().Add(5 * time.Second); p.runs(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("left-over %s (pid %d) does not end", p.Name, p.PID)
			}
		}
	}
	if err := r.clear(); err != nil {
		return err
	}
	fmt.Fprintf(out, "a left-over playground was in %s (pid %d, ended without cleaning up): removed\n", r.dir, pid)
	return nil
}

// runs reports whether the process written down is the one that has its pid.
func (p processState) runs() bool {
	if p.PID <= 0 || p.Start == "" {
		return false
	}
	start, err := startOf(p.PID)
	return err == nil && start == p.Start
}
