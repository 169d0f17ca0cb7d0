package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/release"
)

var update = flag.Bool("update", false, "write the golden files")

// asProgram makes the test binary be puppetsrvctl: a process of its own, with
// signals, exit codes and terminals.
const asProgram = "PUPPETSRVCTL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// environment is that of the program: nothing of the machine's own.
func environment(t *testing.T, more ...string) []string {
	return append([]string{
		asProgram + "=1", "TZ=UTC", "HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "COLUMNS=80",
		"GORACE=atexit_sleep_ms=0", // the race detector would wait a second at each exit
	}, more...)
}

// program is puppetsrvctl with arguments, not started yet.
func program(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, self, args...)
	c.Env = env
	return c
}

// outcome is what a run of the program left.
type outcome struct {
	stdout, stderr string
	code           int
}

func finish(t *testing.T, c *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}

// site is a fake with its socket.
type site struct {
	*fake
	t   *testing.T
	env []string
}

func newSite(t *testing.T) *site {
	f := newFake(t)
	path := socket(t)
	f.listen(t, path)
	return &site{f, t, environment(t, "PUPPETSRV_SERVER=unix://"+path)}
}

func (s *site) run(args ...string) outcome {
	s.t.Helper()
	return finish(s.t, program(s.t, s.env, args...))
}

// want runs the program, and wants a code and texts in stdout.
func (s *site) want(code int, args []string, texts ...string) outcome {
	s.t.Helper()
	o := s.run(args...)
	if o.code != code {
		s.t.Errorf("%q ends with %d, want %d\n%s%s", args, o.code, code, o.stdout, o.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(o.stdout, text) {
			s.t.Errorf("%q does not say %q:\n%s%s", args, text, o.stdout, o.stderr)
		}
	}
	if code == exitDone && o.stderr != "" {
		s.t.Errorf("%q complains: %s", args, o.stderr)
	}
	return o
}

func words(s string) []string { return strings.Fields(s) }

func TestReading(t *testing.T) {
	s := newSite(t)
	for command, text := range map[string]string{
		"status":             "camaster  m1.example.net, up",
		"masters":            "m3.example.net  datacenter2  standby",
		"masters --evidence": "OBSERVER",
		"camaster":           "camaster.example.net is m1.example.net",
		"camaster show":      "version  0.4.ns1",
		"history":            "m3.example.net -> m1.example.net",
		"history m2":         "nothing was ever written",
		"history camaster":   "planned move",
		"zone":               "; datacenter2: datacenter2.example.net in zone example.net",
		"zone datacenter1":   "_x-puppet-ca._tcp.datacenter1.example.net.",
		"cluster":            "ns1 (this one)  node",
		"keys":               "1a2b3c4d  all 2 nodes  all 2 nodes",
		"keys list":          "9f8e7d6c  -",
		"watch --count 3":    "m2.example.net  down in datacenter2: timeout (ns1)",
		"version":            "puppetsrvctl " + release.Version + "\n",
	} {
		o := s.want(exitDone, words(command), text)
		if strings.Contains(o.stdout, "\x1b") {
			t.Errorf("%s: colours in a pipe", command)
		}
	}
}

// With -o json, the API's own objects come out as they are.
func TestJSON(t *testing.T) {
	s := newSite(t)
	s.drainOnce()
	decode := func(command string, into any) {
		t.Helper()
		o := s.want(exitDone, append(words(command), "-o", "json"))
		d := json.NewDecoder(strings.NewReader(o.stdout))
		d.DisallowUnknownFields()
		if err := d.Decode(into); err != nil {
			t.Errorf("%s: %v\n%s", command, err, o.stdout)
		}
	}
	same := func(command string, want, got any) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", command, d)
		}
	}
	var status admin.Status
	decode("status", &status)
	want := s.Status()
	want.Time = status.Time
	same("status", want, status)
	var masters admin.Masters
	decode("masters", &masters)
	same("masters", s.Masters(), masters.Masters)
	var camaster admin.Camaster
	decode("camaster", &camaster)
	same("camaster", s.Camaster(), camaster)
	var history admin.History
	decode("history", &history)
	same("history", s.History(""), history.Writes)
	decode("history --limit 1", &history)
	same("history --limit 1", s.History("")[:1], history.Writes)
	decode("history m2", &history)
	same("history m2", s.History("drain/m2.example.net"), history.Writes)
	var zones admin.Zones
	decode("zone", &zones)
	same("zone", s.Zones(), zones.Zones)
	var zone admin.Zone
	decode("zone datacenter2", &zone)
	same("zone datacenter2", s.Zones()[1], zone)
	var cluster admin.Cluster
	decode("cluster", &cluster)
	same("cluster", s.Cluster(), cluster)
	var keys admin.Keys
	decode("keys", &keys)
	same("keys", s.keys, keys)
	var key admin.KeyResult
	decode("keys add", &key)
	same("keys add", "55667788", key.ID)
	var result admin.Result
	decode("undrain m2", &result)
	same("undrain", s.History("")[0], result.Write)
	var set setResult
	decode("camaster set m3 --reason drill", &set)
	same("camaster set", s.History("")[0], set.Write)
	if len(set.Answers) != 2 || set.Answers[0].Milliseconds <= 0 {
		t.Errorf("answers: %+v", set.Answers)
	}
	decode("camaster set m3 --reason drill", &camaster)
	same("camaster set again", s.Camaster(), camaster)
	var v map[string]string
	decode("version", &v)

	o := s.want(exitDone, words("watch --count 3 -o json"))
	var ids []uint64
	for line := range strings.Lines(o.stdout) {
		var e admin.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("an event is not a line: %v", err)
		}
		ids = append(ids, e.ID)
	}
	same("watch", []uint64{1, 2, 3}, ids)
}

func (s *site) drainOnce() {
	s.t.Helper()
	s.want(exitDone, []string{"drain", "m2", "--reason", "kernel patches"}, "m2.example.net is now drained", "acknowledged by 2 of 2 nodes")
}

func TestDrain(t *testing.T) {
	s := newSite(t)
	s.drainOnce()
	s.want(exitDone, words("drain M4.example.net. --reason patches --for 90s --wait majority"), "m4.example.net is now drained until ", "(in 8")
	w := s.History("")
	if len(w) != 3 || w[0].Key != "drain/m4.example.net" || w[0].Reason != "patches" || time.Until(w[0].Until) > 90*time.Second || w[1].Until != (time.Time{}) {
		t.Errorf("written: %+v", w)
	}
	s.want(exitDone, words("undrain m2 --reason done"), "m2.example.net is now undrained")
	s.want(exitDone, words("undrain m4"))
	if w := s.History(""); w[1].Reason != "done" || w[0].Reason != "" || w[0].To != "undrained" {
		t.Errorf("written: %+v", w[:2])
	}
}

// The nodes' drain has ended, and the host's own goes on.
func TestUndrainOfAHostThatDrainsItself(t *testing.T) {
	s := newSite(t)
	drains := func(d evidence.Drain) {
		s.change(func(st *admin.Status) {
			st.Masters[1].Member = &admin.MasterMember{Name: "m2.example.net", State: "alive", Fresh: true, Evidence: evidence.Evidence{Drain: &d}}
		})
	}
	drains(evidence.Drain{Reason: "puppetserver is restarted", Since: started})
	s.want(exitDone, words("undrain m2"), "m2.example.net is now undrained", "m2.example.net is still drained by its own member: puppetserver is restarted; `puppetsrv-member undrain`")
	drains(evidence.Drain{Reason: "puppetserver is restarted", Since: started, Until: time.Now().Add(-time.Second)})
	if out := s.want(exitDone, words("undrain m2"), "m2.example.net is now undrained").stdout; strings.Contains(out, "still drained") {
		t.Errorf("its drain is over: %s", out)
	}
}

func TestCamasterSet(t *testing.T) {
	s := newSite(t)
	o := s.want(exitDone, words("camaster set m3 --reason drill"),
		"replacing m1.example.net, since ", "by local:root: planned move (version 0.4.ns1)\n",
		"camaster.example.net is now m3.example.net (version 0.5.ns1)\n", "acknowledged by 2 of 2 nodes\n")
	if n := len(regexp.MustCompile(`(?m)^  ns[12]  127\.0\.0\.1:\d+ +\d+\.\d ms$`).FindAllString(o.stdout, -1)); n != 2 {
		t.Errorf("%d nodes are timed:\n%s", n, o.stdout)
	}
	// Without --expect, what was read is what is expected.
	s.set(func(f *fake) {
		if f.expected[0] != "0.4.ns1" {
			t.Errorf("expected %s", f.expected[0])
		}
	})
	s.want(exitDone, words("camaster set m3.example.net --reason drill"), "m3.example.net is the camaster already")
	s.want(exitDone, words("camaster set m3 --reason again --expect 0.4.ns1"), "already")
	if n := len(s.History("camaster")); n != 2 {
		t.Errorf("%d writes: what is so already was written again", n)
	}
	s.want(exitDone, words("camaster set m3 --reason again --force"), "is now m3.example.net")
	s.want(exitDone, words("camaster set m1 --reason back --expect 0.6.ns1 --dns-wait 0s"), "is now m1.example.net")
	if strings.Contains(s.want(exitDone, words("camaster set m3 --reason back --dns-wait 0s")).stdout, " ms") {
		t.Error("the nodes' DNS was asked in spite of --dns-wait 0s")
	}
}

// A node that listens on every address is asked at that of its gossip; one that
// appears with the write is asked too.
func TestCamasterSetFindsTheServers(t *testing.T) {
	s := newSite(t)
	s.change(func(st *admin.Status) {
		st.Nodes[0].DNS = []string{strings.Replace(s.ns1.address, "127.0.0.1", "0.0.0.0", 1)}
		st.Nodes[1].State = "left" // and acknowledges all the same
	})
	o := s.want(exitDone, words("camaster set m3 --reason drill"), "  ns1  "+s.ns1.address, "  ns2  "+s.ns2.address)
	if strings.Count(o.stdout, " ms\n") != 2 {
		t.Error(o.stdout)
	}
}

// A node that is dead is asked, and nobody waits for its DNS: on the night it is
// needed, half of the nodes may be gone.
func TestCamasterSetDoesNotWaitForTheDead(t *testing.T) {
	s := newSite(t)
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	s.change(func(st *admin.Status) {
		st.Nodes = append(st.Nodes, admin.Node{Name: "ns3", State: "dead", DNS: []string{mute.LocalAddr().String()}})
	})
	o := s.want(exitDone, words("camaster set m3 --reason drill --dns-wait 1h"), "  ns3  "+mute.LocalAddr().String())
	if strings.Count(o.stdout, " ms\n") != 2 || !strings.Contains(o.stdout, " no: ") {
		t.Error(o.stdout)
	}
}

func TestIncomplete(t *testing.T) {
	s := newSite(t)
	s.set(func(f *fake) { f.unacked = []string{"ns2"} })
	refused := func(args []string, complaint string, texts ...string) {
		t.Helper()
		if o := s.want(exitIncomplete, args, texts...); o.stderr != "puppetsrvctl: "+complaint+"\n" {
			t.Errorf("%q complains %q", args, o.stderr)
		}
	}
	const stands = "the write stands, but not every node to be waited for has acknowledged it; the others get it when they can be reached"
	refused(words("camaster set m3 --reason drill"), stands, "acknowledged by 1 of 2 nodes, not by\n  ns2  no answer\n")
	refused(words("drain m2 --reason patches"), stands, "ns2  no answer")
	refused(words("undrain m2"), stands, "ns2  no answer")
	const ring = "not every node has changed its key ring; do the same again when they can be reached"
	refused(words("keys add"), ring, "added key 55667788\nacknowledged by 1 of 2 nodes, not by\n  ns2  no answer\n")
	refused(words("keys use 9f8e7d6c"), ring)
	refused(words("keys remove 9f8e7d6c"), ring)
	s.want(exitDone, words("drain m2 --reason patches --wait none"))

	s.set(func(f *fake) { f.unacked = nil })
	s.ns2.sticks()
	refused(words("camaster set m1 --reason drill --dns-wait 300ms"),
		"the write stands, but 1 of 2 DNS servers did not answer the new name within 300ms", " no: it still answers m3.example.net\n")
	s.change(func(st *admin.Status) { st.Nodes[1].DNS = nil })
	refused(words("camaster set m3 --reason drill --dns-wait 5s"),
		"the write stands, but 1 of 2 DNS servers did not answer the new name within 5s", " no: it is not known where its DNS answers\n")
	var set setResult
	o := s.want(exitIncomplete, words("camaster set m1 --reason drill -o json"))
	if err := json.Unmarshal([]byte(o.stdout), &set); err != nil || len(set.Answers) != 2 {
		t.Errorf("%v\n%s", err, o.stdout)
	}
}

func TestCheck(t *testing.T) {
	s := newSite(t)
	s.want(exitDone, words("status --check"))
	s.change(func(st *admin.Status) {
		st.Problems = []admin.Problem{{Severity: "warning", Subject: "disk", Text: "slow"}}
	})
	s.want(exitDone, words("status --check"), "disk: slow")
	s.change(func(st *admin.Status) { st.Problems[0].Severity = "error" })
	s.want(exitDone, words("status"))
	if o := s.want(exitUnwell, words("status --check"), "disk: slow"); o.stderr != "puppetsrvctl: there is 1 error\n" {
		t.Error(o.stderr)
	}
	s.change(func(st *admin.Status) { st.Agree, st.Problems = false, nil })
	if o := s.want(exitUnwell, words("status --check -o json")); o.stderr != "puppetsrvctl: the nodes disagree\n" {
		t.Error(o.stderr)
	}
}

// Help is what README.md and people rely on.
func TestHelp(t *testing.T) {
	s := newSite(t)
	var all strings.Builder
	for _, command := range []string{
		"", "status", "masters", "camaster", "camaster show", "camaster set", "failover", "switchover", "rejoin", "history", "drain", "undrain", "zone", "cluster",
		"keys", "keys list", "keys add", "keys use", "keys remove", "watch", "version", "completion",
	} {
		o := s.want(exitDone, append(words(command), "--help"))
		all.WriteString("$ " + strings.TrimSpace("puppetsrvctl "+command) + " --help\n" + o.stdout + "\n")
	}
	golden(t, "help", all.String())
	for code := exitDone; code <= exitUnwell; code++ {
		if !strings.Contains(all.String(), "\n  "+string(rune('0'+code))+"    ") {
			t.Errorf("exit code %d is not told", code)
		}
	}
}

func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), text); d != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", file, d)
	}
}

// What is in the Corefile alone is not written: members go by the register, so the same
// host has to be set once.
func TestCamasterSetForTheFirstTime(t *testing.T) {
	s := newSite(t)
	s.set(func(f *fake) {
		f.status.Camaster = admin.Camaster{Name: "camaster.example.net.", Host: "m1.example.net.", Version: "0"}
		f.writes = nil
	})
	s.want(exitDone, words("camaster set m1 --reason first --dns-wait 0s"), "is now m1.example.net")
	if w := s.History("camaster"); len(w) != 1 || w[0].To != "m1.example.net" && w[0].To != "m1.example.net." {
		t.Errorf("written: %+v", w)
	}
}
