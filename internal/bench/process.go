package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long something may take that is not measured, such as a
// server's start.
const patience = 30 * time.Second

// process is one running child: a node or a master.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	log    string
	exited chan struct{}
}

// start starts a child with its output in a log. It is called by the main
// goroutine alone, because a child ends with the thread that started it.
func (b *bench) start(name string, env []string, command ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(b.dir, name+".log"), exited: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer out.Close()
	p.cmd = exec.CommandContext(b.ctx, command[0], command[1:]...)
	p.cmd.Dir = b.dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = attributes()
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is of no interest: it is asked to
		close(p.exited)
	}()
	b.processes = append(b.processes, p)
	return p, nil
}

func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("sending %v to %s: %w", s, p.name, err)
	}
	return nil
}

// end kills the process, also a stopped one, and waits for its end.
func (p *process) end() {
	_ = p.cmd.Process.Kill() // it may have ended, which is as good
	<-p.exited
}

// alive is nil while the process runs, else an error with the end of its log.
func (p *process) alive() error {
	select {
	case <-p.exited:
		text, _ := os.ReadFile(p.log) // without it there is less to say, no more
		return fmt.Errorf("%s has ended: %v\n%s", p.name, p.cmd.ProcessState, bytes.TrimSpace(text[max(0, len(text)-2000):]))
	default:
		return nil
	}
}

// cpuTime is the CPU time of all threads so far. Of the two that Linux keeps,
// schedstat counts nanoseconds, where stat counts ticks of 10 ms; it forgets
// threads that have ended, but a Go process ends none that it can use again.
func (p *process) cpuTime() (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("reading the CPU time of %s: this needs Linux with /proc/PID/task/*/schedstat", p.name)
	}
	var sum time.Duration
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // a thread that has just ended
		}
		if err != nil {
			return 0, fmt.Errorf("reading the CPU time of %s: %w", p.name, err)
		}
		d, err := parseSchedstat(string(text))
		if err != nil {
			return 0, fmt.Errorf("reading the CPU time of %s: %w", p.name, err)
		}
		sum += d
	}
	return sum, nil
}

// parseSchedstat returns the time on a CPU, which is the first of three numbers.
func parseSchedstat(s string) (time.Duration, error) {
	fields := strings.Fields(s)
	if len(fields) != 3 {
		return 0, fmt.Errorf("schedstat %q: want three numbers", s)
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("schedstat %q: %w", s, err)
	}
	return time.Duration(n), nil
}

// residentBytes is the resident memory, as /proc/PID/status has it under key:
// VmRSS now, VmHWM at most.
func (p *process) residentBytes(key string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("reading the memory of %s: %w", p.name, err)
	}
	return parseStatus(string(text), key)
}

func parseStatus(s, key string) (int64, error) {
	for line := range strings.Lines(s) {
		name, value, _ := strings.Cut(line, ":")
		if name != key {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("status line %q: %w", line, err)
		}
		return n << 10, nil
	}
	return 0, fmt.Errorf("no %s in the status of a process", key)
}

// freePort returns a port on which nobody listens at addr, on UDP or TCP, nor at
// any of the others.
func freePort(addr netip.Addr, others ...netip.Addr) (uint16, error) {
	for range 20 {
		t, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		if err != nil {
			return 0, fmt.Errorf("looking for a free port: %w", err)
		}
		port := uint16(t.Addr().(*net.TCPAddr).Port)
		t.Close()
		free := true
		for _, a := range append(others, addr) {
			free = free && isFree(netip.AddrPortFrom(a, port))
		}
		if free {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no port is free at %v and %d other addresses", addr, len(others))
}

func isFree(at netip.AddrPort) bool {
	t, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return false
	}
	defer t.Close()
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return false
	}
	u.Close()
	return true
}
