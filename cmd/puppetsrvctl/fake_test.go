package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// started is when all that the fake tells of began.
var started = time.Now().Add(-72 * time.Hour).UTC().Truncate(time.Second)

// fake is a cluster of two nodes and four masters behind the real API server: it
// keeps what is written, and its nodes answer over UDP.
type fake struct {
	ns1, ns2 *nameserver

	mu       sync.Mutex
	status   admin.Status
	writes   []admin.Write
	keys     admin.Keys
	events   []admin.Event
	follow   map[int]func(admin.Event)
	follows  int
	fault    error         // of every write
	unacked  []string      // nodes that do not acknowledge
	hang     chan struct{} // writes wait for it, if it is not nil
	hanging  chan struct{} // a write that waits says so
	expected []string      // the versions that were to be replaced
	stage    *stage        // the members, if there are some
}

func newFake(t *testing.T) *fake {
	f := &fake{ns1: newNameserver(t), ns2: newNameserver(t), follow: make(map[int]func(admin.Event)), hanging: make(chan struct{}, 1)}
	f.status = admin.Status{
		Node: "ns1", Release: "0.1.0", Datacenter: "datacenter1", Started: started, Agree: true,
		Camaster: admin.Camaster{
			Name: "camaster.example.net.", Host: "m1.example.net.", Version: "0.4.ns1", Since: started, Actor: "local:root", Reason: "planned move",
		},
		Expiring: []admin.Expiry{},
		Problems: []admin.Problem{},
	}
	for i, s := range []*nameserver{f.ns1, f.ns2} {
		f.status.Nodes = append(f.status.Nodes, admin.Node{
			Name: fmt.Sprintf("ns%d", i+1), Datacenter: fmt.Sprintf("datacenter%d", i+1), State: "alive", Since: started, Self: i == 0,
			DNS: []string{s.address}, Address: fmt.Sprintf("127.0.0.%d:7946", i+1), Camaster: "m1.example.net.", Version: "0.4.ns1",
			Zones: []admin.ZoneState{{Origin: "example.net.", Serial: 41, Hash: "ab"}}, Agrees: true,
		})
	}
	for n := range 4 {
		m := admin.Master{
			Host: fmt.Sprintf("m%d.example.net.", n+1), Datacenter: fmt.Sprintf("datacenter%d", n/2+1), Port: 8140, Weight: 10,
			CA: n%2 == 0, Camaster: n == 0,
		}
		for d := range 2 {
			v := admin.Verdict{Datacenter: fmt.Sprintf("datacenter%d", d+1), Priority: 20, Listed: true, Since: started}
			if d == n/2 {
				v.Priority = 10
			}
			m.Verdicts = append(m.Verdicts, v)
			m.Evidence = append(m.Evidence, admin.Evidence{Observer: fmt.Sprintf("ns%d", d+1), Datacenter: v.Datacenter, Since: started, Age: 0.5})
		}
		f.status.Masters = append(f.status.Masters, m)
	}
	f.writes = []admin.Write{{
		Key: "camaster", From: "m3.example.net.", To: "m1.example.net.", Version: "0.4.ns1", Parent: "0.3.ns1", Time: started,
		Node: "ns1", Actor: "local:root", Reason: "planned move", Current: true,
	}}
	ring := []admin.Key{{ID: "1a2b3c4d", Primary: true}, {ID: "9f8e7d6c"}}
	f.keys = admin.Keys{Nodes: []admin.NodeKeys{{Node: "ns1", Keys: ring}, {Node: "ns2", Keys: ring}}}
	for id, text := range []string{"down in datacenter1: refused", "up in datacenter1", "down in datacenter2: timeout"} {
		f.events = append(f.events, admin.Event{
			ID: uint64(id + 1), Kind: "verdict", Time: started.Add(time.Duration(id) * time.Second), Node: "ns1", Subject: "m2.example.net.", Text: text,
		})
	}
	return f
}

// set edits what the fake does.
func (f *fake) set(edit func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit(f)
}

// change edits what the fake tells.
func (f *fake) change(edit func(*admin.Status)) {
	f.set(func(f *fake) { edit(&f.status) })
}

func (f *fake) Status() admin.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	s.Time = time.Now().UTC()
	s.Nodes, s.Masters = slices.Clone(s.Nodes), slices.Clone(s.Masters)
	for i := range s.Masters {
		s.Masters[i] = apart(s.Masters[i])
	}
	return s
}

func (f *fake) Masters() []admin.Master { return f.Status().Masters }

func (f *fake) Camaster() admin.Camaster {
	f.call("camaster")
	return f.Status().Camaster
}

func (f *fake) Zones() []admin.Zone {
	var all []admin.Zone
	for _, d := range []string{"datacenter1", "datacenter2"} {
		all = append(all, admin.Zone{Datacenter: d, Domain: d + ".example.net.", Origin: "example.net.", Serial: 41, RRsets: []admin.RRset{
			{Name: "_x-puppet-ca._tcp." + d + ".example.net.", Type: "SRV", TTL: 5, Records: []string{"10 10 8140 m1.example.net."}},
		}})
	}
	return all
}

func (f *fake) History(key string) []admin.Write {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := []admin.Write{}
	for _, w := range f.writes {
		if key == "" || w.Key == key {
			found = append(found, w)
		}
	}
	return found
}

func (f *fake) Cluster() admin.Cluster {
	return admin.Cluster{Node: "ns1", Encrypted: true, Refused: map[string]uint64{"unknown": 2}, Members: []admin.Member{
		{Name: "ns1", Role: "node", Address: "127.0.0.1:7946", Datacenter: "datacenter1", State: "alive", Since: started, Self: true},
		{Name: "ns2", Role: "node", Address: "127.0.0.2:7946", Datacenter: "datacenter2", State: "alive", Since: started},
	}}
}

// wait holds a write up while the test wants it to.
func (f *fake) wait(ctx context.Context) error {
	f.mu.Lock()
	hang := f.hang
	f.mu.Unlock()
	if hang == nil {
		return nil
	}
	f.hanging <- struct{}{}
	select {
	case <-hang:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// acks are those of a write; f.mu is held.
func (f *fake) acks() (acked int, nodes []admin.Ack) {
	for _, n := range f.status.Nodes {
		a := admin.Ack{Node: n.Name, Acked: true, Milliseconds: 0.7, DNS: n.DNS}
		if slices.Contains(f.unacked, n.Name) {
			a.Acked, a.Milliseconds, a.Error = false, 0, "no answer"
		} else {
			acked++
		}
		nodes = append(nodes, a)
	}
	return acked, nodes
}

// written keeps a write and tells of it; f.mu is held.
func (f *fake) written(w admin.Write, wait admin.Wait) admin.Result {
	w.Version = fmt.Sprintf("0.%d.ns1", len(f.writes)+4)
	w.Time, w.Node, w.Current = time.Now().UTC(), "ns1", true
	for i := range f.writes {
		if f.writes[i].Key == w.Key {
			f.writes[i].Current = false
		}
	}
	f.writes = slices.Insert(f.writes, 0, w)
	r := admin.Result{Write: w, Of: len(f.status.Nodes)}
	r.Acked, r.Nodes = f.acks()
	switch wait {
	case admin.WaitNone:
		r.Met = true
	case admin.WaitMajority:
		r.Met = 2*r.Acked > r.Of
	default:
		r.Met = r.Acked == r.Of
	}
	return r
}

func (f *fake) SetCamaster(ctx context.Context, actor string, set admin.SetCamaster) (admin.Result, error) {
	f.call("set " + string(set.Kind))
	defer f.call("done " + string(set.Kind))
	if err := f.wait(ctx); err != nil {
		return admin.Result{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expected = append(f.expected, set.Expect)
	if f.fault != nil {
		return admin.Result{}, f.fault
	}
	current := f.status.Camaster
	if set.Expect != current.Version {
		return admin.Result{}, &admin.Fault{Status: http.StatusConflict, Type: "version-conflict",
			Detail: "the camaster has version " + current.Version + ", not " + set.Expect, Current: &current}
	}
	if f.stage != nil {
		if fault := f.stage.refuses(&f.status, set); fault != nil {
			return admin.Result{}, fault
		}
	}
	if set.Host == "m2.example.net" && !set.Force {
		return admin.Result{}, &admin.Fault{Status: http.StatusConflict, Type: "unsafe",
			Detail: "m2.example.net may not become the camaster.", Rules: []string{"it is not marked ca", "it is down in datacenter1"}}
	}
	r := f.written(admin.Write{Key: "camaster", From: current.Host, To: set.Host, Parent: current.Version, Actor: actor, Reason: set.Reason, Forced: set.Force, Kind: set.Kind, Handover: set.Handover}, set.Wait)
	c := &f.status.Camaster
	c.Host, c.Version, c.Actor, c.Reason, c.Since, c.Forced = set.Host, r.Write.Version, actor, set.Reason, r.Write.Time, set.Force
	c.Kind, c.Handover = set.Kind, set.Handover
	for i := range f.status.Masters {
		f.status.Masters[i].Camaster = trim(f.status.Masters[i].Host) == trim(c.Host)
	}
	f.ns1.turn(set.Host)
	f.ns2.turn(set.Host)
	return r, nil
}

func (f *fake) drain(ctx context.Context, w admin.Write, wait admin.Wait) (admin.Result, error) {
	f.call(w.To)
	defer f.call("done " + w.To)
	if err := f.wait(ctx); err != nil {
		return admin.Result{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		return admin.Result{}, f.fault
	}
	host := strings.TrimPrefix(w.Key, "drain/")
	if !slices.ContainsFunc(f.status.Masters, func(m admin.Master) bool { return m.Host == host+"." }) {
		return admin.Result{}, &admin.Fault{Status: http.StatusNotFound, Type: "no-such-master", Detail: host + " is no master"}
	}
	for i := range f.status.Masters {
		if m := &f.status.Masters[i]; m.Host == host+"." {
			if m.Drain = nil; w.To == "drained" {
				m.Drain = &admin.Drain{Actor: w.Actor, Reason: w.Reason, Since: time.Now().UTC(), Until: w.Until}
			}
		}
	}
	return f.written(w, wait), nil
}

func (f *fake) Drain(ctx context.Context, actor, host string, set admin.SetDrain) (admin.Result, error) {
	w := admin.Write{Key: "drain/" + host, From: "undrained", To: "drained", Actor: actor, Reason: set.Reason}
	if set.For != "" {
		d, err := time.ParseDuration(set.For)
		if err != nil {
			return admin.Result{}, err
		}
		w.Until = time.Now().Add(d).UTC()
	}
	return f.drain(ctx, w, set.Wait)
}

func (f *fake) Undrain(ctx context.Context, actor, host, reason string) (admin.Result, error) {
	return f.drain(ctx, admin.Write{Key: "drain/" + host, From: "drained", To: "undrained", Actor: actor, Reason: reason}, admin.WaitAll)
}

func (f *fake) Keys(context.Context) (admin.Keys, error) { return f.keys, nil }

func (f *fake) changeKey(id string) (admin.KeyResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault != nil {
		return admin.KeyResult{}, f.fault
	}
	r := admin.KeyResult{ID: id, Of: len(f.status.Nodes)}
	r.Acked, r.Nodes = f.acks()
	return r, nil
}

func (f *fake) AddKey(context.Context, string) (admin.KeyResult, error) {
	return f.changeKey("55667788")
}
func (f *fake) UseKey(_ context.Context, _, id string) (admin.KeyResult, error) {
	return f.changeKey(id)
}
func (f *fake) RemoveKey(_ context.Context, _, id string) (admin.KeyResult, error) {
	return f.changeKey(id)
}

func (f *fake) Events(after uint64, call func(admin.Event)) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if e.ID > after {
			call(e)
		}
	}
	f.follows++
	n := f.follows
	f.follow[n] = call
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.follow, n)
	}
}

// happen tells those that follow of an event.
func (f *fake) happen(e admin.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, e)
	for _, call := range f.follow {
		call(e)
	}
}

// silent is a log for servers whose every refusal is wanted.
type silent struct{}

func (silent) Infof(string, ...any)    {}
func (silent) Warningf(string, ...any) {}
func (silent) Errorf(string, ...any)   {}

// listen serves the API on a unix socket, and ends it with the test.
func (f *fake) listen(t *testing.T, path string) *admin.Server {
	t.Helper()
	s, err := admin.Listen(admin.Config{Addresses: []string{"unix://" + path}, Backend: f, Log: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(s) })
	return s
}

func end(s *admin.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.Close(ctx)
}

// nameserver answers the camaster's CNAME over UDP.
type nameserver struct {
	address string

	mu     sync.Mutex
	target string
	next   string
	lag    int  // how many questions more are answered with the old target
	stuck  bool // it never learns the new one
}

func newNameserver(t *testing.T) *nameserver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameserver{address: conn.LocalAddr().String(), target: "m1.example.net."}
	server := &dns.Server{PacketConn: conn, Handler: n}
	var done sync.WaitGroup
	done.Go(func() { server.ActivateAndServe() })
	t.Cleanup(func() { server.Shutdown(); conn.Close(); done.Wait() })
	return n
}

// turn makes a new target, which is answered after a few questions more.
func (n *nameserver) turn(target string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.stuck {
		n.next, n.lag = dns.Fqdn(target), 3
	}
}

// sticks makes it never learn a new target.
func (n *nameserver) sticks() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stuck = true
}

func (n *nameserver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	r := new(dns.Msg).SetReply(q)
	n.mu.Lock()
	if n.next != "" {
		if n.lag--; n.lag < 0 {
			n.target, n.next = n.next, ""
		}
	}
	if q.Question[0].Name == "camaster.example.net." && q.Question[0].Qtype == dns.TypeCNAME {
		r.Answer = append(r.Answer, &dns.CNAME{
			Hdr:    dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 5},
			Target: n.target,
		})
	} else {
		r.Rcode = dns.RcodeNameError
	}
	n.mu.Unlock()
	w.WriteMsg(r)
}

// socket is a path short enough for a unix socket.
func socket(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "admin.sock")
}
