package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// Everything listens on address, where no playground does.
const address = "127.3.1.1"

// patience is how long anything that should happen by itself may take. It is
// only spent on failure.
const patience = 20 * time.Second

// server is one running CoreDNS.
type server struct {
	cmd    *exec.Cmd
	log    *logBuffer
	exited chan struct{}
}

// logBuffer keeps what a process says.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startServer starts the binary. The server is ended by stop, or with ctx.
func startServer(ctx context.Context, dir, binary string, args ...string) (*server, error) {
	s := &server{log: new(logBuffer), exited: make(chan struct{})}
	s.cmd = exec.CommandContext(ctx, binary, args...)
	s.cmd.Dir = dir
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = attributes()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", binary, err)
	}
	go func() {
		_ = s.cmd.Wait() // how it ended is in ProcessState
		close(s.exited)
	}()
	return s, nil
}

// stop asks the server to end and reports if it had not lived until then, or
// does not end.
func (s *server) stop() error {
	select {
	case <-s.exited:
		return fmt.Errorf("it had ended before: %v", s.cmd.ProcessState)
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may end this very moment
	select {
	case <-s.exited:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.exited
		return fmt.Errorf("it did not end within %v of SIGTERM", patience)
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("it ended with %v", s.cmd.ProcessState)
	}
	return nil
}

// freePorts returns n ports of address that nobody listened on a moment ago, on
// UDP or TCP.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		t, err := net.Listen("tcp", address+":0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer t.Close() // all at the end, so that no port is found twice
		u, err := net.ListenPacket("udp", t.Addr().String())
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer u.Close()
		ports = append(ports, t.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func at(port int) string { return net.JoinHostPort(address, strconv.Itoa(port)) }

// eventually calls f until it succeeds, and returns its last error if it does
// not in time.
func eventually(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (waited %v)", err, patience)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ask sends one question and wants the rcode.
func ask(ctx context.Context, network, server, name string, qtype uint16, rcode int) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	c := dns.Client{Net: network, Timeout: 2 * time.Second}
	a, _, err := c.ExchangeContext(ctx, m, server)
	if err != nil {
		return nil, fmt.Errorf("asking for %s %s: %w", name, dns.TypeToString[qtype], err)
	}
	if a.Rcode != rcode {
		return nil, fmt.Errorf("%s %s: rcode %s, want %s", name, dns.TypeToString[qtype], dns.RcodeToString[a.Rcode], dns.RcodeToString[rcode])
	}
	return a, nil
}

// get fetches a page over HTTP; anything but 200 is an error.
func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(b), nil
}

// runToEnd runs the binary for a moment and returns what it said and how it
// ended; -1 if it had to be killed.
func runToEnd(ctx context.Context, dir, binary string, args ...string) (output string, code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = attributes()
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", 0, fmt.Errorf("running %s: %w", binary, err)
	}
	return string(b), cmd.ProcessState.ExitCode(), nil
}
