//go:build linux

package netns_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// healed is within what time everything is as before once a link is back.
const healed = 5 * time.Second

// forgotten is for how long nodes must have been dead for each other, for memberlist
// to forget them: GossipToTheDeadTime of the profiles, and some more.
var forgotten = map[string]time.Duration{"local": 16 * time.Second, "lan": 31 * time.Second}

// cutFor cuts the link for as long as it takes that both sides see it, and a while
// longer, and measures the way back.
func (s *site) cutFor(t *testing.T, longer time.Duration) {
	t.Helper()
	began := time.Now()
	s.cut()
	seen := s.since(began, []condition{s.answers(severed), s.dead()}, patience)
	time.Sleep(longer) // that is the cut
	if c := s.answers(severed); !c.is() {
		t.Errorf("after %v the answers are %q and %q, want %v", time.Since(began), s.listed(s.nodes["ns1"]), s.listed(s.nodes["ns2"]), severed)
	}
	length := time.Since(began)
	began = time.Now()
	s.net.Heal()
	after := s.since(began, s.well(), patience)
	t.Logf("profile %s: cut for %v, seen after: %s; healed after %v: %s", s.profile, length.Round(10*time.Millisecond), figures(seen), last(after).Round(10*time.Millisecond), figures(after))
	if last(after) > healed {
		t.Errorf("everything is as before %v after the link, want %v: %s", last(after), healed, figures(after))
	}
}

// A cut link makes each side list its own masters first and the others as down;
// nobody ever goes without a good answer, and all is as before soon after the link,
// also where memberlist has forgotten the other side.
func TestCutLink(t *testing.T) {
	t.Parallel()
	s := newSite(t, "local")
	s.up()
	end := s.watch(20, 120)
	for _, longer := range []time.Duration{0, forgotten["local"], time.Second, 0} {
		s.cutFor(t, longer)
	}
	end()
}

// The same with the times that are the default.
func TestCutLinkLAN(t *testing.T) {
	t.Parallel()
	s := newSite(t, "lan")
	s.up()
	end := s.watch(20, 120)
	s.cutFor(t, forgotten["lan"])
	end()
}

// Where only the nodes cannot reach each other, or one not the other, no answer changes:
// masters that are seen are up.
func TestNodesAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, "local")
	s.up()
	end := s.watch(20)
	ns1, ns2 := s.datacenter("ns1"), s.datacenter("ns2")
	for how, cut := range map[string]func(){
		"both ways":   func() { s.net.Cut(ns1, ns2) },
		"ns1 is mute": func() { s.net.CutOneWay(ns1, ns2) },
		"ns2 is mute": func() { s.net.CutOneWay(ns2, ns1) },
	} {
		began := time.Now()
		cut()
		seen := s.since(began, []condition{s.dead(), s.answers(whole)}, patience)
		began = time.Now()
		s.net.Heal()
		after := s.since(began, s.well(), patience)
		t.Logf("%s: seen after: %s; healed after %v: %s", how, figures(seen), last(after).Round(10*time.Millisecond), figures(after))
		if last(after) > healed {
			t.Errorf("%s: everything is as before %v after the link, want %v", how, last(after), healed)
		}
	}
	end()
}

// camasterEverywhere is that both nodes hold this, and answer it.
func (s *site) camasterEverywhere(host, version string) condition {
	return condition{"camaster", func() bool {
		for _, name := range []string{"ns1", "ns2"} {
			n := s.nodes[name]
			if c := s.status(n).Camaster; c.Host != host || c.Version != version || s.served(n) != host {
				return false
			}
		}
		return true
	}}
}

// Both sides of a cut move the camaster. After it both have the same one, and it can
// be seen everywhere that there were two.
func TestBothSidesFlip(t *testing.T) {
	t.Parallel()
	s := newSite(t, "local")
	s.up()
	ns1, ns2 := s.nodes["ns1"], s.nodes["ns2"]
	set := func(n *node, want int, args ...string) answered {
		t.Helper()
		a := s.ctl(n, append([]string{"camaster", "set"}, args...)...)
		if a.code != want {
			t.Fatalf("camaster set %v at %s, want exit code %d: %v", args, n.name, want, a)
		}
		return a
	}
	sever := func() {
		t.Helper()
		s.cut()
		s.until([]condition{s.answers(severed), s.dead()}, patience)
	}
	heal := func(host, version string) {
		t.Helper()
		began := time.Now()
		s.net.Heal()
		after := s.since(began, append(s.well(), s.camasterEverywhere(host, version)), patience)
		t.Logf("healed after %v: %s", last(after).Round(10*time.Millisecond), figures(after))
		if last(after) > healed {
			t.Errorf("everything is as it must be %v after the link, want %v: %s", last(after), healed, figures(after))
		}
	}
	// conflict wants a write that has won over others to be seen on both nodes, by
	// scripts, by people and in the metrics.
	conflict := func(winner string, over ...string) {
		t.Helper()
		for _, n := range []*node{ns1, ns2} {
			var found []string
			for _, w := range reads[admin.History](s, n, "history", "camaster").Writes {
				if w.Version == winner {
					found = w.Conflict
					if !w.Current {
						t.Errorf("%s: history does not have %s as the current one", n.name, winner)
					}
				}
			}
			slices.Sort(found)
			if !slices.Equal(found, over) {
				t.Errorf("%s: in history %s is in conflict with %q, want %q", n.name, winner, found, over)
			}
			st := reads[admin.Status](s, n, "status")
			var shown []string
			for _, w := range st.Camaster.Conflicts {
				shown = append(shown, w.Version)
			}
			slices.Sort(shown)
			if !slices.Equal(shown, over) {
				t.Errorf("%s: in status the conflicts are %q, want %q", n.name, shown, over)
			}
			if out := s.must(n, "status").stdout; !strings.Contains(out, "without knowing of each other") {
				t.Errorf("%s: people see no conflict in the status:\n%s", n.name, out)
			}
			for _, version := range over {
				if !strings.Contains(s.must(n, "history").stdout, version) {
					t.Errorf("%s: people do not see %s in the history", n.name, version)
				}
				n.says("Register camaster", version, "won over")
			}
		}
	}
	const metric = "coredns_puppetsrv_register_conflicts_total"
	for _, n := range []*node{ns1, ns2} {
		if v := s.metric(n, metric); v != 0 {
			t.Errorf("%s: %s is %g before any conflict", n.name, metric, v)
		}
	}

	// Each side moves it to a master of its own, which the rules allow. What they do
	// not allow without force is a master that cannot be seen.
	sever()
	a := set(ns1, 0, "m2", "--reason", "ours")
	if !containsAll(a.stdout, []string{"acknowledged by 1 of 2 nodes", "ns2.example.net  dead"}) {
		t.Errorf("it does not say who has not got it:\n%s", a.stdout)
	}
	if a := set(ns2, 3, "m2", "--reason", "theirs"); !strings.Contains(a.stderr, "m2.example.net is down") {
		t.Errorf("the refusal does not say why: %v", a)
	}
	set(ns2, 0, "m3", "--reason", "theirs")
	for n, want := range map[*node]string{ns1: "m2.example.net", ns2: "m3.example.net"} {
		if got := s.served(n); got != want {
			t.Errorf("during the cut %s serves %s, want %s", n.name, got, want)
		}
	}
	heal("m3.example.net", "0.1.ns2.example.net") // the same counter: the node decides
	conflict("0.1.ns2.example.net", "0.1.ns1.example.net")
	for _, n := range []*node{ns1, ns2} {
		if v := s.metric(n, metric); v != 1 {
			t.Errorf("%s: %s is %g after a conflict, want 1", n.name, metric, v)
		}
	}

	// One side writes more, the other with force: force wins.
	sever()
	set(ns1, 0, "m1", "--reason", "back")
	set(ns1, 0, "m2", "--reason", "forth")
	set(ns1, 0, "m1", "--reason", "and back")
	set(ns2, 3, "m2", "--reason", "refused")
	set(ns2, 0, "m2", "--reason", "I know it is up", "--force")
	heal("m2.example.net", "1.2.ns2.example.net")
	conflict("1.2.ns2.example.net", "0.2.ns1.example.net", "0.3.ns1.example.net", "0.4.ns1.example.net")
	for _, n := range []*node{ns1, ns2} {
		if v := s.metric(n, metric); v != 4 {
			t.Errorf("%s: %s is %g, want 4", n.name, metric, v)
		}
	}
	for _, n := range []*node{ns1, ns2} {
		if got := len(reads[admin.History](s, n, "history").Writes); got != 6 {
			t.Errorf("%s: the history has %d writes, want all 6", n.name, got)
		}
	}

	// A write that has seen them all ends it.
	set(ns1, 0, "m1", "--reason", "agreed")
	s.until([]condition{{"no conflict", func() bool {
		return len(s.status(ns1).Camaster.Conflicts)+len(s.status(ns2).Camaster.Conflicts) == 0
	}}}, patience)
}
