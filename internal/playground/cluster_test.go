package main_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var nodes = []string{"ns1", "ns2"}

// everywhere are the answers of moved when host is camaster.
func everywhere(host string) []string { return []string{host + ".", host + ".", host + "."} }

// kill ends a node or master and waits until the playground has seen it.
func (p *playground) kill(name string, how syscall.Signal) {
	p.t.Helper()
	pid := p.state().process(name).PID
	if err := syscall.Kill(pid, how); err != nil {
		p.t.Fatalf("killing %s (pid %d): %v", name, pid, err)
	}
	p.says(fmt.Sprintf("%s (pid %d) ", name, pid))
	eventually(p.t, name+" has ended", func() bool { return p.state().process(name).PID == 0 })
}

func (p *playground) again(name string) {
	p.t.Helper()
	if out, err := p.ask("-start", name); err != nil {
		p.t.Fatalf("-start %s: %v, %q", name, err, out)
	}
}

// One command moves the camaster on both nodes, and what it printed is true: no
// question after its return gets the old name.
func TestFlip(t *testing.T) {
	t.Parallel()
	p := start(t)
	s := p.up()
	for _, name := range nodes {
		if diff := cmp.Diff(everywhere("m1.example.net"), moved(s.process(name).Address)); diff != "" {
			t.Errorf("%s before (-want +got):\n%s", name, diff)
		}
	}

	began := time.Now()
	a := p.ctl(p.socket("ns1"), "camaster", "set", "m3.example.net", "--reason", "drill", "-o", "json")
	took := time.Since(began)
	if a.code != 0 {
		t.Fatalf("exit code %d: %s", a.code, a.stderr)
	}
	for _, name := range nodes {
		if diff := cmp.Diff(everywhere("m3.example.net"), moved(s.process(name).Address)); diff != "" {
			t.Errorf("%s after (-want +got):\n%s", name, diff)
		}
		if c := p.camaster(name); c.Host != "m3.example.net" || c.Reason != "drill" || c.Version != "0.1.ns1.example.net" {
			t.Errorf("%s has the camaster %+v", name, c)
		}
	}
	var result struct {
		Acked, Of int
		Met       bool
		Nodes     []struct{ Milliseconds float64 }
		Answers   []struct {
			Node, Address, Error string
			Milliseconds         float64
		}
	}
	if err := json.Unmarshal([]byte(a.stdout), &result); err != nil {
		t.Fatal(err)
	}
	if result.Acked != 2 || result.Of != 2 || !result.Met {
		t.Errorf("acked %d of %d, met %t; want 2 of 2", result.Acked, result.Of, result.Met)
	}
	var asked []string
	for _, answer := range result.Answers {
		if answer.Error != "" {
			t.Errorf("%s answers: %s", answer.Node, answer.Error)
		}
		asked = append(asked, answer.Address)
		t.Logf("%s answers the new name after %.1f ms", answer.Node, answer.Milliseconds)
	}
	slices.Sort(asked)
	if diff := cmp.Diff([]string{s.process("ns1").Address, s.process("ns2").Address}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	t.Logf("camaster set took %v", took.Round(time.Millisecond))
	if took > 5*time.Second { // one second is meant; this machine may be busy
		t.Errorf("camaster set took %v", took)
	}
	if s.Camaster != p.state().Camaster {
		t.Error("playground.json has another configured camaster now")
	}
}

// What was written survives the death of all nodes; a node with an empty disk
// learns it, also when it was there first.
func TestFlipIsKept(t *testing.T) {
	t.Parallel()
	p := start(t)
	s := p.up()
	if a := p.ctl(p.socket("ns2"), "camaster", "set", "m3.example.net", "--reason", "drill"); a.code != 0 {
		t.Fatalf("exit code %d: %s", a.code, a.stderr)
	}
	want := p.camaster("ns2")
	kept := func(name string) bool {
		return p.camaster(name) == want && slices.Equal(moved(s.process(name).Address), everywhere("m3.example.net"))
	}

	p.kill("ns1", syscall.SIGKILL)
	p.kill("ns2", syscall.SIGKILL)
	for _, name := range nodes {
		p.again(name)
		if !kept(name) {
			t.Errorf("%s after its restart: %+v, want %+v; it answers %v", name, p.camaster(name), want, moved(s.process(name).Address))
		}
	}

	wipe := func(name string) {
		state := filepath.Join(p.dir, name, "state")
		if entries, err := os.ReadDir(state); err != nil || len(entries) == 0 {
			t.Fatalf("%s has no state: %v", name, err)
		}
		if err := os.RemoveAll(state); err != nil {
			t.Fatal(err)
		}
	}
	// It comes back while another knows.
	p.kill("ns2", syscall.SIGKILL)
	wipe("ns2")
	p.again("ns2")
	eventually(t, "ns2 has learned", func() bool { return kept("ns2") })
	if !kept("ns1") {
		t.Errorf("ns1 has %+v now, want %+v", p.camaster("ns1"), want)
	}

	// It comes back first, and knows nothing for a while.
	p.kill("ns1", syscall.SIGKILL)
	p.kill("ns2", syscall.SIGKILL)
	wipe("ns2")
	p.again("ns2")
	if c := p.camaster("ns2"); c.Version != "0" || c.Host != "m1.example.net" {
		t.Errorf("ns2 alone with an empty disk: %+v, want what the Corefile says", c)
	}
	p.again("ns1")
	eventually(t, "ns2 has learned", func() bool { return kept("ns2") })
	if !kept("ns1") {
		t.Errorf("ns1 has %+v now, want %+v", p.camaster("ns1"), want)
	}
	// And it is on its disk.
	p.kill("ns1", syscall.SIGKILL)
	p.kill("ns2", syscall.SIGKILL)
	p.again("ns2")
	if !kept("ns2") {
		t.Errorf("ns2 has not kept what it learned: %+v", p.camaster("ns2"))
	}
}

// A drain lists a master last on every node, and ends by itself.
func TestDrain(t *testing.T) {
	t.Parallel()
	p := start(t)
	s := p.up()
	first := srv(t, s.process("ns1").Address, "datacenter1")
	drained := []string{first[0], first[2], first[3], "110 m2.example.net:18140"}

	began := time.Now()
	if a := p.ctl(p.socket("ns2"), "drain", "m2", "--reason", "drill", "--for", "2s"); a.code != 0 {
		t.Fatalf("exit code %d: %s", a.code, a.stderr)
	}
	for _, name := range nodes {
		eventually(t, name+" lists m2 last", func() bool {
			return slices.Equal(srv(t, s.process(name).Address, "datacenter1"), drained)
		})
		t.Logf("%s lists m2 last %v after the command", name, time.Since(began).Round(time.Millisecond))
	}
	for _, name := range nodes {
		eventually(t, name+" lists m2 first again", func() bool {
			return slices.Equal(srv(t, s.process(name).Address, "datacenter1"), first)
		})
		t.Logf("%s lists m2 first again %v after the command", name, time.Since(began).Round(time.Millisecond))
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("m2 was back after %v", took)
	}
	var history struct{ Writes []struct{ Key, To string } }
	p.reads("ns1", &history, "history")
	if len(history.Writes) != 1 || history.Writes[0].Key != "drain/m2.example.net" || history.Writes[0].To != "drained" {
		t.Errorf("somebody has undrained it: %+v", history.Writes)
	}
}

// A node that is asked to end leaves, one that is killed is dead, and a write says
// who has not got it.
func TestNodeLeavesOrDies(t *testing.T) {
	t.Parallel()
	p := start(t)
	s := p.up()
	asked := s.process("ns1").PID
	p.kill("ns1", syscall.SIGTERM)
	p.says(fmt.Sprintf("ns1 (pid %d) ended in good order", asked))
	eventually(t, "ns1 has left", func() bool { return p.member("ns2", "ns1.example.net") == "left" })
	p.again("ns1")
	for _, name := range nodes {
		eventually(t, "ns1 is back for "+name, func() bool { return p.member(name, "ns1.example.net") == "alive" })
	}

	p.kill("ns1", syscall.SIGKILL)
	eventually(t, "ns1 is dead", func() bool { return p.member("ns2", "ns1.example.net") == "dead" })
	a := p.ctl(p.socket("ns2"), "camaster", "set", "m3.example.net", "--reason", "drill")
	if a.code != 0 || !strings.Contains(a.stdout, "acknowledged by 1 of 2 nodes") || !strings.Contains(a.stdout, "ns1.example.net  dead") {
		t.Errorf("exit code %d: it does not say that ns1 is dead:\n%s%s", a.code, a.stdout, a.stderr)
	}
	p.again("ns1")
	eventually(t, "ns1 answers what it missed", func() bool {
		return slices.Equal(moved(s.process("ns1").Address), everywhere("m3.example.net"))
	})
}

// Over https a certificate of the CA may read; only who is named may write; who is
// revoked may nothing.
func TestWhoMayWrite(t *testing.T) {
	t.Parallel()
	p := start(t)
	s := p.up()
	set := []string{"camaster", "set", "m3.example.net", "--reason", "drill"}
	ns2 := s.process("ns2")
	stranger := []string{"--cert", p.dir + "/m2/cert.pem", "--key", p.dir + "/m2/key.pem", "--ca", s.CA, "--crl", s.SSLDir + "/crl.pem"}

	if a := p.ctl(ns2.Admin[1], append(stranger, "status")...); a.code != 0 {
		t.Errorf("m2 may not read: exit code %d: %s", a.code, a.stderr)
	}
	if a := p.ctl(ns2.Admin[1], append(stranger, set...)...); a.code != 6 || !strings.Contains(a.stderr, "admin_allow write m2.example.net") {
		t.Errorf("m2 writes: exit code %d: %s", a.code, a.stderr)
	}
	for _, name := range nodes {
		if c := p.camaster(name); c.Version != "0" {
			t.Errorf("%s has the camaster %+v, which nobody may have written", name, c)
		}
	}
	wantLog(t, p.dir+"/log/ns2.log", "403", "m2.example.net", "/v1/camaster")

	operator := []string{"--ssldir", s.SSLDir}
	if a := p.ctl(ns2.Admin[1], append(operator, set...)...); a.code != 0 {
		t.Fatalf("the operator writes: exit code %d: %s", a.code, a.stderr)
	}
	if c := p.camaster("ns1"); c.Host != "m3.example.net" || c.Actor != "operator.example.net" {
		t.Errorf("the camaster is %+v", c)
	}

	if out, err := p.ask("-revoke", "nobody.example.net"); err == nil || !strings.Contains(out, `no certificate was issued to "nobody.example.net"`) {
		t.Errorf("-revoke of nobody: %v, %q", err, out)
	}
	if out, err := p.ask("-revoke", s.Operator); err != nil || !strings.Contains(out, "is revoked") {
		t.Fatalf("-revoke: %v, %q", err, out)
	}
	for _, name := range nodes {
		server := s.process(name).Admin[1]
		eventually(t, name+" refuses the operator", func() bool { return p.ctl(server, append(operator, "status")...).code == 6 })
		if a := p.ctl(server, append(operator, "camaster", "set", "m1.example.net", "--reason", "theft")...); a.code != 6 || !strings.Contains(a.stderr, "revoked") {
			t.Errorf("%s: the revoked operator writes: exit code %d: %s", name, a.code, a.stderr)
		}
		wantLog(t, p.dir+"/log/"+name+".log", "403", "operator.example.net", "revoked")
		if c := p.camaster(name); c.Host != "m3.example.net" {
			t.Errorf("%s has the camaster %+v", name, c)
		}
	}
	// Others may as before.
	if a := p.ctl(ns2.Admin[1], append(stranger, "status")...); a.code != 0 {
		t.Errorf("m2 may not read any more: exit code %d: %s", a.code, a.stderr)
	}
}

// The certificate of a node is good for whatever its API is asked by.
func TestServerNames(t *testing.T) {
	t.Parallel()
	p := start(t)
	s := p.up()
	for i, name := range nodes {
		block, _ := pem.Decode(read(t, filepath.Join(p.dir, name, "cert.pem")))
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		for _, asked := range []string{"127.0.0.1", "localhost", name + ".example.net", p.base + fmt.Sprint(i+1)} {
			if err := certificate.VerifyHostname(asked); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if a := p.ctl(s.process(name).Admin[1], "--ssldir", s.SSLDir, "cluster"); a.code != 0 || !strings.Contains(a.stdout, "gossip is encrypted\n") {
			t.Errorf("%s: exit code %d: %s%s", name, a.code, a.stdout, a.stderr)
		}
	}
}

// Where the path of the run directory is none for a socket, the sockets are
// elsewhere, and go with it, however it ends.
func TestSocketsElsewhere(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{
		"long": filepath.Join(t.TempDir(), strings.Repeat("long", 30), "run"),
		"%":    filepath.Join(t.TempDir(), "100% mine", "run"),
	} {
		p := startAt(t, dir, freeBase(t))
		s := p.up()
		path := strings.TrimPrefix(s.process("ns2").Admin[0], "unix://")
		if strings.HasPrefix(path, dir) {
			t.Errorf("%s: the socket is %s", name, path)
		}
		if a := p.ctl("unix://"+path, "cluster"); a.code != 0 {
			t.Errorf("%s: exit code %d: %s", name, a.code, a.stderr)
		}
		if name == "long" {
			if err := p.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			p.ends()
			for _, process := range s.Processes {
				eventually(t, process.Name+" has ended", func() bool { return !alive(process.PID) })
			}
		}
		if out, err := p.ask("-stop"); err != nil {
			t.Errorf("%s: -stop: %v, %q", name, err, out)
		}
		p.leavesNothing(s.Processes)
		if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the sockets' directory is left: %v", name, err)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// wantLog wants a line of a log with all of these words.
func wantLog(t *testing.T, path string, words ...string) {
	t.Helper()
	log := read(t, path)
	for line := range strings.Lines(string(log)) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return
		}
	}
	t.Errorf("%s has no line with %q:\n%s", path, words, log)
}
