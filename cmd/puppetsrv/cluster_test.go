package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// watcher is a second node that keeps what it sees of the first.
type watcher struct {
	*cluster.Cluster
	mu   sync.Mutex
	seen []string // states of ns1, each once in a row
}

func (w *watcher) look() {
	for _, p := range w.Peers() {
		if p.Name == "ns1.example.net" {
			w.mu.Lock()
			if s := p.Status.String(); len(w.seen) == 0 || w.seen[len(w.seen)-1] != s {
				w.seen = append(w.seen, s)
			}
			w.mu.Unlock()
		}
	}
}

func (w *watcher) states() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.seen, " ")
}

type silent struct{}

func (silent) Debugf(string, ...any)   {}
func (silent) Infof(string, ...any)    {}
func (silent) Warningf(string, ...any) {}
func (silent) Errorf(string, ...any)   {}

// join joins the cluster as a member of a name and a role.
func (m *masters) join(name string, role cluster.Role, seed netip.AddrPort, changed func()) *cluster.Cluster {
	m.t.Helper()
	id, err := m.ca.Issue(stub.IssueOptions{CommonName: name})
	if err != nil {
		m.t.Fatal(err)
	}
	identity, err := trust.NewIdentity(id.Certificate)
	if err != nil {
		m.t.Fatal(err)
	}
	authority, err := trust.Open(filepath.Join(m.dir, "ca.pem"), "")
	if err != nil {
		m.t.Fatal(err)
	}
	c, err := cluster.Start(cluster.Config{
		Name: name, Role: role, Identity: identity, Authority: authority, Log: silent{},
		Policy:  cluster.Policy{Join: []string{seed.String()}, Signers: func(s string) bool { return strings.HasPrefix(s, "ns") }},
		Gossip:  &gossip.Config{Bind: freePort(m.t), Profile: gossip.Local},
		Changed: changed,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(c.Close)
	return c
}

// watch joins the cluster as ns2.
func (m *masters) watch(seed netip.AddrPort) *watcher {
	m.t.Helper()
	w := &watcher{}
	ready := make(chan struct{})
	w.Cluster = m.join("ns2.example.net", cluster.RoleNode, seed, func() { go func() { <-ready; w.look() }() })
	close(ready)
	return w
}

// clustered is a Corefile of ns1 as a node of a cluster.
func (m *masters) clustered(gossipAt netip.AddrPort, state string, more ...string) string {
	m.t.Helper()
	ssl := filepath.Join(m.dir, "ssl")
	return strings.Replace(m.corefile(append(more, "state "+state, "node ns1.example.net", "location datacenter1", "crl "+ssl+"/crl.pem",
		"gossip "+gossipAt.String()+" profile local", "admin unix://"+filepath.Join(m.dir, "admin.sock"), "admin_allow sign ns2.example.net")...),
		"tls "+m.dir+"/ca.pem", fmt.Sprintf("tls %[1]s/certs/ns1.example.net.pem %[1]s/private_keys/ns1.example.net.pem %[1]s/certs/ca.pem", ssl), 1)
}

// A server is a node of its cluster over reloads, also over such that fail, and
// leaves when it ends.
func TestAClusterOutlivesReloads(t *testing.T) {
	m := newMasters(t)
	m.ssl("ns1.example.net")
	gossipAt, state := freePort(t), t.TempDir()
	socket := "unix://" + filepath.Join(m.dir, "admin.sock")
	corefile := func(more ...string) string { return m.clustered(gossipAt, state, more...) }
	s := serve(t, corefile())
	w := m.watch(gossipAt)
	client, err := admin.NewClient(socket, admin.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s; ns1 was seen %s", what, w.states())
			}
		}
	}
	await("ns1 is a member", func() bool { return w.states() == "alive" })

	events := make(chan admin.Event, 100)
	ctx, cancel := context.WithCancel(t.Context())
	streamed := make(chan error, 1)
	go func() {
		streamed <- client.Events(ctx, 0, func(e admin.Event) error { events <- e; return nil })
	}()
	flip := func(to string) {
		t.Helper()
		c, err := client.Camaster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.SetCamaster(t.Context(), admin.SetCamaster{Host: to, Reason: "drill", Expect: c.Version, Force: true, Wait: admin.WaitNone}); err != nil {
			t.Fatal(err)
		}
		await("the answer follows", func() bool {
			a := s.ask("puppet-camaster.example.net.", dns.TypeCNAME).Answer
			return len(a) == 1 && a[0].(*dns.CNAME).Target == to+"."
		})
	}
	flip("m3.example.net")
	for i := range 5 {
		if err := s.reload(corefile(fmt.Sprintf("ttl %d", i+10), "members accept m*.example.net")); err != nil {
			t.Fatal(err)
		}
		if err := s.reload(strings.Replace(corefile("ttl 30"), "bind 127.0.0.1", "bind 192.0.2.77", 1)); err == nil {
			t.Fatal("a reload to an address that is not here succeeds")
		}
		flip([]string{"m1.example.net", "m3.example.net"}[i%2])
	}
	// One stream has told of all flips.
	for _, want := range []string{"m3", "m1", "m3", "m1", "m3", "m1"} {
		for {
			e := <-events
			if e.Kind != "camaster" {
				continue
			}
			if e.Write == nil || e.Write.To != want+".example.net" {
				t.Fatalf("the stream tells of %+v, want a flip to %s", e, want)
			}
			break
		}
	}
	cancel()
	<-streamed
	if got := w.states(); got != "alive" {
		t.Errorf("over reloads ns1 was seen %s", got)
	}
	s.stop()
	await("ns1 has left", func() bool { return w.states() == "alive left" })
	if _, err := client.Status(t.Context()); err == nil {
		t.Error("the API answers after the end")
	}
	// It starts again as what it was, and the others know it.
	s = serve(t, corefile())
	if a := s.ask("puppet-camaster.example.net.", dns.TypeCNAME).Answer; a[0].(*dns.CNAME).Target != "m1.example.net." {
		t.Errorf("the first answer is %v", a)
	}
	await("ns1 is back", func() bool { return slices.Equal(strings.Fields(w.states()), []string{"alive", "left", "alive"}) })
}

// A master that the Corefile does not name is listed when its member has announced it,
// also by a node that has just been started again; and not any more when it has left.
// One whose name is not accepted does not get in.
func TestAMasterIsKnownByJoining(t *testing.T) {
	m := newMasters(t)
	m.ssl("ns1.example.net")
	gossipAt, state := freePort(t), t.TempDir()
	corefile := m.clustered(gossipAt, state, "members accept m5*.example.net")
	s := serve(t, corefile)
	const four = "m1@10 m2@10 m3@20 m4@20"
	s.until(dc1, four)
	announce := func(name string) *cluster.Cluster {
		t.Helper()
		id, err := m.ca.Issue(stub.IssueOptions{CommonName: name})
		if err != nil {
			t.Fatal(err)
		}
		master, err := stub.NewMaster("127.0.0.1:0", id)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { master.Close() })
		c := m.join(name, cluster.RoleMaster, gossipAt, nil)
		c.Publish(cluster.Report{Release: "test", Announce: &cluster.Announcement{
			Host: name + ".", Datacenter: "datacenter1", Port: master.Addr().Port(), Weight: 10, Addresses: []netip.Addr{master.Addr().Addr()},
		}})
		return c
	}
	announce("m6.example.net")
	five := announce("m5.example.net")
	s.until(dc1, "m1@10 m2@10 m5@10 m3@20 m4@20")
	if a := s.ask("m5.example.net.", dns.TypeA).Answer; len(a) != 1 || a[0].(*dns.A).A.String() != "127.0.0.1" {
		t.Errorf("its address is %v", a)
	}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // it is remembered
		data, err := os.ReadFile(filepath.Join(state, "cluster.json"))
		if err == nil && strings.Contains(string(data), `"host": "m5.example.net."`) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("m5 is not remembered: %s, %v", data, err)
		}
	}
	s.stop()
	s = serve(t, corefile)
	if got := tiers(s.ask(dc1, dns.TypeSRV)); got != "m1@10 m2@10 m5@10 m3@20 m4@20" {
		t.Errorf("after a restart the first answer is %q", got)
	}
	client, err := admin.NewClient("unix://"+filepath.Join(m.dir, "admin.sock"), admin.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // it is a member again
		c, err := client.Cluster(t.Context())
		if err != nil || time.Now().After(end) {
			t.Fatalf("m5 does not come back: %+v, %v", c, err)
		}
		if slices.ContainsFunc(c.Members, func(m admin.Member) bool {
			return m.Name == "m5.example.net" && m.State == "alive" && m.Role == "master"
		}) {
			break
		}
	}
	five.Leave(time.Second)
	s.until(dc1, four)
}
