//go:build linux

package netns_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/netns"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

type hosts = []*netns.Host

// soon is how long a packet that arrives at all may take; short is how long one that
// must not is waited for.
const (
	soon  = 10 * time.Second
	short = 300 * time.Millisecond
)

// serve has a host answer on port 7 what it is sent, by UDP and by TCP.
func serve(t *testing.T, h *netns.Host) {
	t.Helper()
	var packets net.PacketConn
	var streams net.Listener
	err := h.Do(func() (err error) {
		if packets, err = net.ListenPacket("udp", h.Addr.String()+":7"); err == nil {
			streams, err = net.Listen("tcp", h.Addr.String()+":7")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close(); streams.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(buf[:n], from)
		}
	}()
	go func() {
		for {
			conn, err := streams.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
}

// dial connects a host to another's port 7.
func dial(t *testing.T, network string, from, to *netns.Host, patience time.Duration) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := from.Dial(ctx, network, to.Addr.String()+":7")
	if err == nil {
		t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// echo sends something over a connection and reads it back.
func echo(conn net.Conn, text string, patience time.Duration) error {
	if _, err := conn.Write([]byte(text)); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if string(got) != text {
		return fmt.Errorf("%q was sent and %q came back", text, got)
	}
	return nil
}

// wantTimeout wants an error of somebody who has waited in vain, and not been told.
func wantTimeout(t *testing.T, what string, err error) {
	t.Helper()
	if e := net.Error(nil); !errors.As(err, &e) || !e.Timeout() {
		t.Errorf("%s: %v, want nothing but a timeout", what, err)
	}
}

// A cut swallows everything between its groups, in both directions, and nothing else;
// what was under way goes on after it.
func TestCut(t *testing.T) {
	n := netns.New(t)
	a1, a2 := n.Host("a1", "10.1.0.1"), n.Host("a2", "10.1.0.2")
	b, c := n.Host("b", "192.0.2.7"), n.Host("c", "172.16.0.1")
	for _, h := range []*netns.Host{a1, a2, b, c} {
		serve(t, h)
	}
	reach := func(network string, from, to *netns.Host) {
		t.Helper()
		conn, err := dial(t, network, from, to, soon)
		if err == nil {
			err = echo(conn, "here", soon)
		}
		if err != nil {
			t.Errorf("%s from %s to %s: %v", network, from.Name, to.Name, err)
		}
	}
	all := []*netns.Host{a1, a2, b, c}
	everybody := func(except func(from, to *netns.Host) bool) {
		t.Helper()
		for _, from := range all {
			for _, to := range all {
				if except == nil || !except(from, to) {
					reach("udp", from, to)
					reach("tcp", from, to)
				}
			}
		}
	}
	everybody(nil)
	open, err := dial(t, "tcp", a1, b, soon)
	if err != nil {
		t.Fatal(err)
	}
	if err := echo(open, "before", soon); err != nil {
		t.Fatal(err)
	}

	n.Cut(hosts{a1, a2}, hosts{b})
	n.Cut(hosts{b}, hosts{a1}) // again: no more than before
	between := func(x, y *netns.Host) bool {
		return slices.Contains(hosts{a1, a2}, x) && y == b || x == b && slices.Contains(hosts{a1, a2}, y)
	}
	everybody(between)
	for _, from := range all {
		for _, to := range all {
			if !between(from, to) {
				continue
			}
			_, err := dial(t, "tcp", from, to, short)
			wantTimeout(t, fmt.Sprintf("connecting %s to %s", from.Name, to.Name), err)
			conn, err := dial(t, "udp", from, to, soon)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // a reject would come back with the second
				wantTimeout(t, fmt.Sprintf("a packet from %s to %s", from.Name, to.Name), echo(conn, "lost", short/2))
			}
		}
	}
	wantTimeout(t, "the open connection", echo(open, "kept", short))

	n.Heal()
	everybody(nil)
	_ = open.SetReadDeadline(time.Now().Add(soon))
	kept := make([]byte, 4)
	if _, err := io.ReadFull(open, kept); err != nil || string(kept) != "kept" {
		t.Errorf("what was sent during the cut: %q, %v", kept, err)
	}
	n.Heal()
}

// What is cut in one direction goes through in the other; what is cut goes through in
// none.
func TestDirections(t *testing.T) {
	n := netns.New(t)
	a, b := n.Host("a", "10.1.0.1"), n.Host("b", "10.1.0.2")
	listen := func(h *netns.Host) (p net.PacketConn) {
		err := h.Do(func() (err error) { p, err = net.ListenPacket("udp", h.Addr.String()+":9"); return err })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	atA, atB := listen(a), listen(b)
	arrives := func(from, to net.PacketConn, patience time.Duration) error {
		if _, err := from.WriteTo([]byte("x"), to.LocalAddr()); err != nil {
			return err
		}
		_ = to.SetReadDeadline(time.Now().Add(patience))
		_, _, err := to.ReadFrom(make([]byte, 1))
		return err
	}
	through := func(what string, from, to net.PacketConn) {
		t.Helper()
		if err := arrives(from, to, soon); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	through("a to b", atA, atB)
	n.CutOneWay(hosts{a}, hosts{b})
	wantTimeout(t, "a to b, cut one way", arrives(atA, atB, short))
	through("b to a, against the cut", atB, atA)
	n.Heal()
	through("a to b, healed", atA, atB)
	n.Cut(hosts{a}, hosts{b})
	wantTimeout(t, "a to b, cut", arrives(atA, atB, short))
	wantTimeout(t, "b to a, cut", arrives(atB, atA, short))
}

// says starts a command, and waits for its first word: it is on its host then.
func says(t *testing.T, cmd *exec.Cmd, word string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, len(word))
	if _, err := io.ReadFull(out, said); err != nil || string(said) != word {
		t.Fatalf("%q, %v; want %q", said, err, word)
	}
}

// Hosts lose their power without the others, and another owner can use a network.
func TestKillAndResume(t *testing.T) {
	n := netns.New(t)
	a, b := n.Host("a", "10.1.0.1"), n.Host("b", "10.1.0.2")
	serve(t, a)
	file := filepath.Join(t.TempDir(), "here")
	if err := os.WriteFile(file, []byte("bound\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Bind(file, "/etc/hostname")
	var sleeps []*exec.Cmd
	for _, h := range []*netns.Host{a, a, b} {
		cmd := h.Command("sh", "-c", "echo here; exec sleep 1000")
		says(t, cmd, "here")
		sleeps = append(sleeps, cmd)
	}
	if err := netns.Kill(a); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range sleeps[:2] {
		if err := cmd.Wait(); err == nil {
			t.Error("a's process was not killed")
		}
	}
	if err := sleeps[2].Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("b's process: %v", err)
	}

	data, err := json.Marshal(n.Save())
	if err != nil {
		t.Fatal(err)
	}
	var saved netns.Saved
	if err := json.Unmarshal(data, &saved); err != nil {
		t.Fatal(err)
	}
	other := netns.Resume(t, saved)
	hosts := other.Hosts()
	if len(hosts) != 2 || hosts[1].Name != "b" || hosts[1].Addr != b.Addr {
		t.Fatalf("the hosts are %v", hosts)
	}
	if out, err := hosts[1].Command("cat", "/etc/hostname").CombinedOutput(); err != nil || string(out) != "bound\n" {
		t.Errorf("b reads %q, %v", out, err)
	}
	conn, err := dial(t, "udp", hosts[1], a, soon)
	if err == nil {
		err = echo(conn, "here", soon)
	}
	if err != nil {
		t.Errorf("b to a: %v", err)
	}
	other.Cut(hosts[:1], hosts[1:])
	wantTimeout(t, "b to a, cut", echo(conn, "there", short))
	other.Heal()
	if err := echo(conn, "again", soon); err != nil {
		t.Errorf("b to a, healed: %v", err)
	}

	if err := netns.Kill(b); err != nil {
		t.Error(err)
	}
	_ = sleeps[2].Wait() // killed
	if out, err := exec.Command("ip", "netns", "delete", b.Namespace()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := netns.Kill(a, b); err == nil || !strings.Contains(err.Error(), "the host b") {
		t.Errorf("a host without a namespace: %v", err)
	}
}

// What a process held is free when Kill returns: it starts again at once.
func TestKillWaitsForTheEnd(t *testing.T) {
	n := netns.New(t)
	a := n.Host("a", "10.1.0.1")
	dir := t.TempDir()
	for range 5 {
		cmd := a.Command(os.Args[0], dir)
		cmd.Env = append(os.Environ(), roleVariable+"=holder")
		says(t, cmd, "holds")
		if err := netns.Kill(a); err != nil {
			t.Error(err)
		}
		lock, err := store.LockDir(dir)
		if err != nil {
			t.Error(err)
		} else if err := lock.Unlock(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed
	}
}

// A command sees its host's network and names, what was bound for it, and the
// machine's files.
func TestCommand(t *testing.T) {
	n := netns.New(t)
	a, b := n.Host("a.example.net", "10.1.0.1"), n.Host("b.example.net", "10.1.0.2")
	file := filepath.Join(t.TempDir(), "here")
	if err := os.WriteFile(file, []byte("bound\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.Bind(file, "/etc/hostname")
	out := func(h *netns.Host, name string, args ...string) string {
		t.Helper()
		out, err := h.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s on %s: %v: %s", name, h.Name, err, out)
		}
		return string(out)
	}
	if got := out(a, "ip", "-o", "-4", "address", "show", "dev", "eth0"); !strings.Contains(got, "inet 10.1.0.1/32") {
		t.Errorf("a has the address %s", got)
	}
	if got := out(a, "cat", file, "/etc/hostname"); got != "bound\nbound\n" {
		t.Errorf("a reads %q", got)
	}
	if got := out(b, "cat", "/etc/hostname"); got == "bound\n" {
		t.Error("b has what was bound for a")
	}
	if got := out(a, "/bin/sh", "-c", `echo "$0 $1"`, "two words", "  "); got != "two words   \n" {
		t.Errorf("arguments came as %q", got)
	}
	own, _ := os.Hostname()
	if got := out(a, "uname", "-n"); got != "a.example.net\n" {
		t.Errorf("a's own name is %q", got)
	}
	if now, err := os.Hostname(); err != nil || now != own {
		t.Errorf("the machine's name is %q now, %v; it was %q", now, err, own)
	}
	names := func() string { return out(a, "cat", "/etc/hosts") }
	if got := names(); !strings.Contains(got, "\n10.1.0.2 b.example.net b\n") {
		t.Errorf("hosts are %q", got)
	}

	// Also a program that runs sees a name move.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	waiting := b.Command("sh", "-c", "echo ready; read line; cat /etc/hosts")
	waiting.Stdin = r
	said, err := waiting.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := io.ReadFull(said, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	n.Resolve("b.example.net", "10.1.0.9")
	fmt.Fprintln(w)
	later, err := io.ReadAll(said)
	if err != nil {
		t.Fatal(err)
	}
	if err := waiting.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{names(), string(later)} {
		if !strings.Contains(got, "\n10.1.0.9 b.example.net b\n") || strings.Contains(got, "10.1.0.2") {
			t.Errorf("hosts are %q", got)
		}
	}

	// The id is the program's own.
	sleep := a.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	comm := func() string {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", sleep.Process.Pid))
		return strings.TrimSpace(string(b))
	}
	eventually(t, "the process is sleep itself", func() bool { return comm() == "sleep" })
	_ = sleep.Process.Kill()
	if err := sleep.Wait(); err == nil {
		t.Error("sleep was not killed")
	}
}

func TestDelay(t *testing.T) {
	n := netns.New(t)
	a, b := n.Host("a", "10.1.0.1"), n.Host("b", "10.1.0.2")
	serve(t, b)
	conn, err := dial(t, "udp", a, b, soon)
	if err != nil {
		t.Fatal(err)
	}
	took := func() time.Duration {
		t.Helper()
		began := time.Now()
		if err := echo(conn, "x", soon); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	took() // ARP
	a.Delay(0, 0)
	a.Delay(200*time.Millisecond, 0)
	if d := took(); d < 200*time.Millisecond {
		t.Errorf("with a delay of 200 ms: %v", d)
	}
	a.Delay(0, 1)
	wantTimeout(t, "with all packets lost", echo(conn, "x", short))
	a.Delay(0, 0)
	if d := took(); d >= 200*time.Millisecond {
		t.Errorf("without a delay: %v", d)
	}
}

// recorder is a T that is no test.
type recorder struct {
	testing.TB
	said string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.said = fmt.Sprintf(format, args...)
	panic(r)
}

// Mistakes are said, and make nothing.
func TestMistakes(t *testing.T) {
	netns.New(t) // skips, where it must
	for _, test := range []struct{ name, address, want string }{
		{"a", "10.1.0.2", "there is a at 10.1.0.1"},
		{"b", "10.1.0.1", "there is a at 10.1.0.1"},
		{"b", "10.1.0", "not an IPv4 address"},
		{"b", "2001:db8::1", "not an IPv4 address"},
		{"b", "169.254.1.9", "not an IPv4 address"},
		{"B", "10.1.0.2", "lower case"},
		{"../b", "10.1.0.2", "lower case"},
		{"", "10.1.0.2", "lower case"},
	} {
		r := &recorder{TB: t}
		func() {
			defer func() { _ = recover() }()
			m := netns.New(r)
			m.Host("a", "10.1.0.1")
			m.Host(test.name, test.address)
		}()
		if !strings.Contains(r.said, test.want) {
			t.Errorf("host %q at %q: %q, want %q", test.name, test.address, r.said, test.want)
		}
	}
}
