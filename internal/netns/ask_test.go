//go:build linux

package netns_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/netns"
)

// agents are where the agents of a node's datacenter ask from.
var agents = map[string]string{"ns1": "m1", "ns2": "m3"}

// The answers that agents of both datacenters get.
var (
	whole = map[string][]string{
		"ns1": {"10 m1", "10 m2", "20 m3", "20 m4"},
		"ns2": {"10 m3", "10 m4", "20 m1", "20 m2"},
	}
	severed = map[string][]string{
		"ns1": {"10 m1", "10 m2", "120 m3", "120 m4"},
		"ns2": {"10 m3", "10 m4", "120 m1", "120 m2"},
	}
)

// ask asks a node from a host of its datacenter, for somebody who asks again: a kernel
// soon stops to say that nobody listens there, and a start must not take as long as
// a time-out.
func (s *site) ask(n *node, name string, qtype uint16) ([]dns.RR, error) {
	return ask(s.hosts[agents[n.name]], n, name, qtype, 300*time.Millisecond)
}

// asked is ask for somebody who does not ask again: a busy machine may have answered late.
func (s *site) asked(n *node, name string, qtype uint16) (records []dns.RR, err error) {
	for range 10 {
		if records, err = s.ask(n, name, qtype); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return records, err
}

// ask asks a node from a host. Anything but an answer with records is an error.
func ask(from *netns.Host, n *node, name string, qtype uint16, patience time.Duration) ([]dns.RR, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := from.Dial(ctx, "udp", n.host.Addr.String()+":53")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.SetEdns0(1232, false)
	client := dns.Client{Timeout: patience}
	r, _, err := client.ExchangeWithConnContext(ctx, q, &dns.Conn{Conn: conn, UDPSize: 1232})
	switch {
	case err != nil:
		return nil, err
	case r.Rcode != dns.RcodeSuccess || !r.Authoritative || len(r.Answer) == 0:
		return nil, fmt.Errorf("%s is answered with %s, authoritative %t, %d records", name, dns.RcodeToString[r.Rcode], r.Authoritative, len(r.Answer))
	}
	return r.Answer, nil
}

// listed is the answer for the masters, as "PRIORITY LABEL", sorted.
func (s *site) listed(n *node) []string {
	return listed(s.ask(n, mastersOf(n), dns.TypeSRV))
}

// mastersOf is the name by which a node's agents find masters.
func mastersOf(n *node) string { return "_x-puppet._tcp." + n.datacenter + ".example.net." }

func listed(records []dns.RR, err error) []string {
	if err != nil {
		return []string{err.Error()}
	}
	var all []string
	for _, rr := range records {
		if rr, ok := rr.(*dns.SRV); ok {
			all = append(all, fmt.Sprintf("%d %s", rr.Priority, strings.TrimSuffix(rr.Target, ".example.net.")))
		}
	}
	slices.SortFunc(all, func(a, b string) int {
		x, _ := strconv.Atoi(strings.Fields(a)[0])
		y, _ := strconv.Atoi(strings.Fields(b)[0])
		if x != y {
			return x - y
		}
		return strings.Compare(a, b)
	})
	return all
}

// served is whom a node's DNS has as camaster: by the CNAME, and by who is the CA. It
// must be one and the same.
func (s *site) served(n *node) string {
	var all []string
	for _, q := range []dns.Question{
		{Name: "puppet-camaster.example.net.", Qtype: dns.TypeCNAME},
		{Name: "_x-puppet-ca._tcp." + n.datacenter + ".example.net.", Qtype: dns.TypeSRV},
	} {
		records, err := s.asked(n, q.Name, q.Qtype)
		if err != nil {
			return err.Error()
		}
		for _, rr := range records {
			target := ""
			switch rr := rr.(type) {
			case *dns.CNAME:
				target = rr.Target
			case *dns.SRV:
				target = rr.Target
			}
			if target = strings.TrimSuffix(target, "."); !slices.Contains(all, target) {
				all = append(all, target)
			}
		}
	}
	return strings.Join(all, " and ")
}

// status is what a node believes; empty where its API does not answer. Who asks again
// within a moment is told the same: the API lets nobody ask more than 100 times a second.
func (s *site) status(n *node) admin.Status {
	if time.Since(n.asked) < 15*time.Millisecond {
		return n.status
	}
	st, err := n.client.Status(s.t.Context())
	if err != nil {
		st = admin.Status{Node: err.Error()}
	}
	n.status, n.asked = st, time.Now()
	return st
}

// state is how a node sees another.
func state(st admin.Status, name string) string {
	for _, n := range st.Nodes {
		if n.Name == name {
			return n.State
		}
	}
	return "unknown"
}

// condition is something that becomes true.
type condition struct {
	what string
	is   func() bool
}

// well is that the site is as it should be.
func (s *site) well() []condition { return []condition{s.answers(whole), s.met(), s.agreed()} }

// met is that the nodes live for each other.
func (s *site) met() condition { return s.each("members", "alive") }

// dead is that the nodes have given each other up.
func (s *site) dead() condition { return s.each("dead", "dead") }

func (s *site) each(what, want string) condition {
	ns1, ns2 := s.nodes["ns1"], s.nodes["ns2"]
	return condition{what, func() bool {
		return state(s.status(ns1), ns2.corefile.node) == want && state(s.status(ns2), ns1.corefile.node) == want
	}}
}

// agreed is that both nodes say that they agree and nothing is wrong.
func (s *site) agreed() condition {
	return condition{"status", func() bool { return s.agrees(s.nodes["ns1"]) && s.agrees(s.nodes["ns2"]) }}
}

// answers is that both datacenters' agents get these.
func (s *site) answers(want map[string][]string) condition {
	return condition{"answers", func() bool {
		return slices.Equal(s.listed(s.nodes["ns1"]), want["ns1"]) && slices.Equal(s.listed(s.nodes["ns2"]), want["ns2"])
	}}
}

// agrees is that a node says that both agree and nothing is wrong, strangers aside.
func (s *site) agrees(n *node) bool {
	st := s.status(n)
	known := 0
	for _, m := range st.Nodes {
		if slices.Contains(s.strangers, m.Name) {
			continue
		}
		if known++; m.State != "alive" || !m.Self && !m.Agrees {
			return false
		}
	}
	return st.Agree && known == 2 && !slices.ContainsFunc(st.Problems, func(p admin.Problem) bool {
		return p.Severity == "error" && !slices.Contains(s.strangers, p.Subject)
	})
}

// until waits until all conditions hold at the same time, and returns since when each
// has, from the call on. The clock starts before what it does first.
func (s *site) until(conditions []condition, most time.Duration) map[string]time.Duration {
	s.t.Helper()
	began := time.Now()
	return s.since(began, conditions, most)
}

func (s *site) since(began time.Time, conditions []condition, most time.Duration) map[string]time.Duration {
	s.t.Helper()
	after := make(map[string]time.Duration)
	for {
		for _, c := range conditions {
			if !c.is() {
				delete(after, c.what)
			} else if _, ok := after[c.what]; !ok {
				after[c.what] = time.Since(began)
			}
		}
		if len(after) == len(conditions) {
			return after
		}
		if time.Since(began) > most {
			if s.explain != nil {
				s.explain()
			}
			for _, n := range s.nodes {
				if n.program != nil {
					st, _ := json.MarshalIndent(s.status(n), "", " ")
					s.t.Logf("%s lists %q, serves %s and says %s", n.name, s.listed(n), s.served(n), st)
				}
			}
			s.t.Fatalf("not within %v: only %v of %d conditions hold", most, after, len(conditions))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// last is the longest time of a measurement.
func last(after map[string]time.Duration) (most time.Duration) {
	for _, d := range after {
		most = max(most, d)
	}
	return most
}

// figures are the times of a measurement for people.
func figures(after map[string]time.Duration) string {
	var all []string
	for what, d := range after {
		all = append(all, fmt.Sprintf("%s %v", what, d.Round(10*time.Millisecond)))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// watch asks both nodes all the time, as agents, until the returned function is
// called; that fails the test if there was anything but good answers. In each of
// them a datacenter's own masters come first, with 10, and the others have one of the
// priorities.
func (s *site) watch(priorities ...int) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, name := range []string{"ns1", "ns2"} {
		n, from := s.nodes[name], s.hosts[agents[name]]
		all.Go(func() { s.watchOne(ctx, from, n, priorities) })
	}
	stop := sync.OnceFunc(func() { cancel(); all.Wait() })
	s.t.Cleanup(stop)
	return stop
}

// resolver is how long a resolver waits for an answer, by default of resolv.conf(5).
const resolver = 5 * time.Second

func (s *site) watchOne(ctx context.Context, from *netns.Host, n *node, priorities []int) {
	asked, longest := 0, time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		got := listed(ask(from, n, mastersOf(n), dns.TypeSRV, resolver))
		if !ordered(got, n, priorities) {
			s.t.Errorf("%s answers %q, want all four, its own masters first, the others at %v", n.name, got, priorities)
		}
		if _, err := ask(from, n, "_x-puppet-ca._tcp."+n.datacenter+".example.net.", dns.TypeSRV, resolver); err != nil {
			s.t.Errorf("%s: %v", n.name, err)
		}
		asked += 2
		longest = max(longest, time.Since(began))
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.t.Logf("%s was asked %d times, the slowest two answers took %v", n.name, asked, longest.Round(time.Millisecond))
}

// ordered reports whether an answer has a datacenter's own masters at 10 and the two
// others, each once, at one of the priorities.
func ordered(got []string, n *node, priorities []int) bool {
	if len(got) != 4 || !slices.Equal(got[:2], whole[n.name][:2]) {
		return false
	}
	var others []string
	for _, line := range got[2:] {
		priority, label, _ := strings.Cut(line, " ")
		if p, err := strconv.Atoi(priority); err != nil || !slices.Contains(priorities, p) {
			return false
		}
		others = append(others, label)
	}
	slices.Sort(others)
	return strings.HasSuffix(whole[n.name][2], others[0]) && strings.HasSuffix(whole[n.name][3], others[1])
}

// answered is what a run of puppetsrvctl has answered.
type answered struct {
	code           int
	stdout, stderr string
}

func (a answered) String() string {
	return fmt.Sprintf("exit code %d: %s%s", a.code, a.stdout, a.stderr)
}

// ctl runs puppetsrvctl on a node's host, over its socket.
func (s *site) ctl(n *node, args ...string) answered {
	s.t.Helper()
	return s.ctlFrom(n.host, n.socket(s), args...)
}

// ctlFrom runs puppetsrvctl on a host.
func (s *site) ctlFrom(h *netns.Host, server string, args ...string) answered {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := h.CommandContext(ctx, filepath.Join(bin, "puppetsrvctl"), args...)
	cmd.Env = append(environ(), "PUPPETSRV_SERVER="+server)
	a, err := output(cmd)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// output runs a command to its end, whose exit code is no error.
func output(cmd *exec.Cmd) (answered, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		return answered{}, err
	}
	return answered{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}, nil
}

// must runs puppetsrvctl, which must succeed.
func (s *site) must(n *node, args ...string) answered {
	s.t.Helper()
	a := s.ctl(n, args...)
	if a.code != 0 {
		s.t.Fatalf("puppetsrvctl %v at %s: %v", args, n.name, a)
	}
	return a
}

// reads has puppetsrvctl read something as scripts do.
func reads[V any](s *site, n *node, args ...string) (v V) {
	s.t.Helper()
	a := s.must(n, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(a.stdout), &v); err != nil {
		s.t.Fatalf("puppetsrvctl %v: %v: %s", args, err, a.stdout)
	}
	return v
}

// metric is the sum of a metric's values on a node, over all labels that contain
// words.
func (s *site) metric(n *node, name string, words ...string) (sum float64) {
	s.t.Helper()
	transport := &http.Transport{DialContext: n.host.Dial, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: patience}
	r, err := client.Get("http://" + n.host.Addr.String() + ":9153/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	found := false
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		labels, ok := strings.CutPrefix(lines.Text(), name+"{")
		if !ok || !containsAll(labels, words) {
			continue
		}
		v, err := strconv.ParseFloat(labels[strings.LastIndexByte(labels, ' ')+1:], 64)
		if err != nil {
			s.t.Fatalf("metric %s: %v", lines.Text(), err)
		}
		found = true
		sum += v
	}
	if !found {
		s.t.Fatalf("%s has no metric %s with %q", n.name, name, words)
	}
	return sum
}
