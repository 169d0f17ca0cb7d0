//go:build linux

package stack

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// serviceScript is /etc/lab/service of each host.
//
//go:embed service.sh
var serviceScript string

// The names of services.
const (
	Node         = "puppetsrv"
	Member       = "puppetsrv-member"
	Puppetserver = "puppetserver"
	PuppetDB     = "puppetdb"
	PostgreSQL   = "postgresql"
	NSD          = "nsd"
)

// patience is how long anything may take that is waited for. JVMs start side by side on
// two cores.
const patience = 4 * time.Minute

// StartServices starts services as a boot does: a node and the member first, then the
// database, and what needs it, then the rest beside it.
func (h *Host) StartServices(ctx context.Context, names ...string) error {
	has := make(map[string]bool)
	for _, name := range names {
		has[name] = true
	}
	chain := func(links ...string) func() error {
		return func() error {
			for _, name := range links {
				if !has[name] {
					continue
				}
				if err := h.Service(ctx, "start", name); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if err := chain(Node, Member)(); err != nil {
		return err
	}
	return each(chain(PostgreSQL, PuppetDB), chain(Puppetserver), chain(NSD))
}

// Service has the host start, stop, restart or reload a service, as systemctl would, and
// returns when it is ready.
func (h *Host) Service(ctx context.Context, verb, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := h.Run(ctx, "/etc/lab/service", verb, name).Error(); err != nil {
		return fmt.Errorf("%w\n%s", err, tail(h.ServiceLog(name)))
	}
	return nil
}

// ServiceLog is what a service has printed.
func (h *Host) ServiceLog(name string) string {
	if name == PostgreSQL {
		return h.Read("/var/log/postgresql/postgresql.log")
	}
	return h.Read("/var/log/lab/" + name + ".log")
}

// PID is the process of a service.
func (h *Host) PID(name string) (int, error) {
	path := "/run/lab/" + name + ".pid"
	if name == PostgreSQL {
		path = "/var/lib/postgresql/data/postmaster.pid"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(h.Read(path)), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil || syscall.Kill(pid, 0) != nil {
		return 0, fmt.Errorf("%s does not run on %s", name, h.Short)
	}
	return pid, nil
}

// Runs reports whether a service has a process.
func (h *Host) Runs(name string) bool {
	_, err := h.PID(name)
	return err == nil
}

// Kill ends a service by SIGKILL and returns when its process is gone.
func (h *Host) Kill(name string) error {
	pid, err := h.PID(name)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s on %s does not end by SIGKILL", name, h.Short)
		}
	}
}

// Pause stops a service as a kernel that hangs would: its sockets stay open.
func (h *Host) Pause(name string) error { return h.signal(name, syscall.SIGSTOP) }

// Resume ends a pause.
func (h *Host) Resume(name string) error { return h.signal(name, syscall.SIGCONT) }

func (h *Host) signal(name string, sig syscall.Signal) error {
	pid, err := h.PID(name)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, sig)
}
