package cluster_test

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// hostile is a member that has the gossip key and the certificate of a master,
// which may not write registers. It says that it is a node, and what it likes.
type hostile struct {
	s    *site
	id   *trust.Identity
	pool *gossip.Pool

	mu     sync.Mutex
	got    map[string]map[string]json.RawMessage // the newest message, by its part and who has sealed it
	answer func(entries map[string]any) any      // to entries that are to be acknowledged; nil: none
}

const hostileName = "m9.example.net"

func newHostile(s *site) *hostile {
	s.t.Helper()
	h := &hostile{s: s, got: make(map[string]map[string]json.RawMessage)}
	cfg := s.config(hostileName) // for its address and its certificate
	h.id = s.ids[hostileName]
	g := *cfg.Gossip
	g.Name, g.Meta, g.Join, g.Delegate = hostileName, []byte(`{"role":"node"}`), s.seeds, h
	var err error
	if h.pool, err = gossip.Start(g); err != nil {
		s.t.Fatal(err)
	}
	s.until("the hostile member is in", 20*time.Second, func() bool { return len(h.pool.Members()) == len(s.nodes)+1 })
	return h
}

func (h *hostile) Received(b []byte) {
	var m map[string]json.RawMessage
	if json.Unmarshal(b, &m) != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for part, data := range m {
		h.got[part+" of "+sealer(data)] = m
	}
	var e map[string]any
	d := json.NewDecoder(bytes.NewReader(m["entries"]))
	d.UseNumber() // the ids have 64 bits
	if h.answer == nil || m["entries"] == nil || d.Decode(&e) != nil {
		return
	}
	if reply := h.answer(e); reply != nil {
		go h.send(e["from"].(string), reply)
	}
}

func (h *hostile) State() []byte { return []byte(`{}`) }
func (h *hostile) Merge([]byte)  {}
func (h *hostile) Changed()      {}

// last returns the newest message with that part that somebody has sealed, nil if
// there was none.
func (h *hostile) last(part, who string) map[string]json.RawMessage {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.got[part+" of "+who]
}

// sealer is who has sealed a part of a message, or its first entry.
func sealer(part json.RawMessage) string {
	var s struct {
		Certificate  []byte
		Certificates [][]byte
	}
	if json.Unmarshal(part, &s) != nil {
		return ""
	}
	leaf, err := x509.ParseCertificate(append(s.Certificates, s.Certificate)[0])
	if err != nil {
		return ""
	}
	return trust.Certname(leaf)
}

func (h *hostile) send(to string, m any) {
	data, ok := m.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(m); err != nil {
			h.s.t.Error(err)
		}
	}
	for range 1000 {
		err := h.pool.Send(h.s.t.Context(), to, data)
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			h.s.t.Errorf("the hostile member cannot send: %v", err)
			return
		}
		time.Sleep(time.Millisecond) // it has too many streams open
	}
	h.s.t.Error("the hostile member cannot send at all")
}

// object is a JSON object.
type object = map[string]any

// sealed is v under a seal, as it goes over the wire.
func sealed(t testing.TB, id *trust.Identity, kind string, v any) trust.Sealed {
	t.Helper()
	payload, ok := v.([]byte)
	if !ok {
		var err error
		if payload, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	s, err := id.Seal(kind, payload)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// entryOf is the payload of a flip that would win over everything.
func entryOf(t testing.TB, at time.Time) []byte {
	t.Helper()
	payload, err := register.Encode(register.Entry{
		Key: "camaster", Value: json.RawMessage(`{"host":"m9.example.net."}`), Version: register.Version{Epoch: 1 << 31, Counter: 1 << 62, Node: "ns1.example.net"},
		Time: at, Actor: "hostile", Reason: "mine",
	})
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// entries is a message with register entries, each under its seal.
func entries(from string, seals ...trust.Sealed) object {
	certificates, list := [][]byte{}, []object{}
	for _, s := range seals {
		print := sha256.Sum256(s.Certificate)
		certificates = append(certificates, s.Certificate)
		list = append(list, object{"payload": s.Payload, "seal": append(print[:], s.Signature...)})
	}
	return object{"entries": object{"from": from, "id": 7, "certificates": certificates, "entries": list}}
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

func deflated(t testing.TB, v any) []byte {
	t.Helper()
	data, ok := v.([]byte)
	if !ok {
		data, _ = json.Marshal(v)
	}
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestSpeed)
	if _, err := w.Write(data); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// belief is all that a node holds to be true: registers, key ring, reports.
func belief(t testing.TB, s *site, name string) string {
	t.Helper()
	c := s.nodes[name]
	var b strings.Builder
	b.WriteString(content(c.Registers()))
	for _, p := range c.Peers() {
		if p.Report != nil {
			r, _ := json.Marshal(p.Report)
			fmt.Fprintf(&b, "%s fresh %v: %s\n", p.Name, p.Fresh, r)
		}
	}
	fmt.Fprintf(&b, "masters %v\n", c.Masters())
	rings, err := c.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rings {
		if r.Name == name {
			fmt.Fprintf(&b, "keys %v\n", r.Keys)
		}
	}
	return b.String()
}

// besieged runs f with two nodes, one flip, and a hostile member.
func besieged(t *testing.T, f func(t *testing.T, s *site, h *hostile)) {
	bubble(t, 2, func(t *testing.T, s *site) {
		s.log = quietLog{}
		s.write("ns1.example.net", flip("m3.example.net.", "drill"))
		h := newHostile(s)
		defer h.pool.Close()
		time.Sleep(10 * time.Second)
		f(t, s, h)
		// The cluster goes on, also where a node has just been started.
		time.Sleep(6 * time.Second)
		r, err := s.nodes["ns2.example.net"].Write(t.Context(), flip("m4.example.net.", "goes on"), cluster.WaitNone)
		if err != nil {
			t.Fatal(err)
		}
		s.until("a flip is on both", time.Second, func() bool {
			got, ok := s.agree()
			return ok && got == "m4.example.net. "+r.Entry.Version.String()
		})
	})
}

// Nothing that the gossip key alone can bring in changes a register, a key ring or a
// report; and each kind of it is counted.
func TestForged(t *testing.T) {
	besieged(t, func(t *testing.T, s *site, h *hostile) {
		one := s.ids["ns1.example.net"]
		now := time.Now()
		issue := func(o stub.IssueOptions) *trust.Identity {
			id, err := s.pki.ca.Issue(o)
			if err != nil {
				t.Fatal(err)
			}
			identity, err := trust.NewIdentity(id.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			return identity
		}
		expired := issue(stub.IssueOptions{CommonName: "ns7.example.net", NotAfter: now.Add(-time.Hour)})
		early := issue(stub.IssueOptions{CommonName: "ns7.example.net", NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)})
		revoked := issue(stub.IssueOptions{CommonName: "ns8.example.net"})
		s.pki.ca.Revoke(revoked.Leaf.SerialNumber)
		s.pki.writeCRL()
		foreign := newPKI(t).identity("ns1.example.net")
		// The wrong key under a good certificate.
		stolen := *h.id
		stolen.Leaf = one.Leaf

		flipped := entryOf(t, now)
		seal := func(id *trust.Identity) trust.Sealed { return sealed(t, id, "register entry", flipped) }
		changed := sealed(t, one, "register entry", []byte(strings.Replace(string(flipped), "m9.", "m8.", 1)))
		changed.Payload = flipped
		bare := seal(one)
		bare.Signature = nil
		report := object{"observer": "ns2.example.net", "role": "node", "release": "forged", "started": now, "boot": uint64(1) << 60, "seq": uint64(1)}
		with := func(o object, more ...any) object {
			c := object{}
			for k, v := range o {
				c[k] = v
			}
			for i := 0; i < len(more); i += 2 {
				c[more[i].(string)] = more[i+1]
			}
			return c
		}
		call := object{"id": 1, "from": "ns2.example.net", "to": "ns1.example.net", "boot": uint64(1) << 60, "seq": 1, "time": now, "op": "add-key", "arg": make([]byte, 32)}
		many := slices.Repeat([]trust.Sealed{seal(h.id)}, 300)
		long := append(must(json.Marshal(report)), bytes.Repeat([]byte(" "), 9<<20)...)

		for _, tt := range []struct {
			name    string
			message any
			counted string // as what it is refused; "" if it is nothing
		}{
			{"an entry without a signature", entries(hostileName, bare), "entry"},
			{"an entry without a seal", object{"entries": object{"from": hostileName, "entries": []object{{"payload": flipped}}}}, "entry"},
			{"an entry without its certificate", object{"entries": object{"from": hostileName, "entries": entries("", seal(one))["entries"].(object)["entries"]}}, "entry"},
			{"signed with the wrong key", entries("ns1.example.net", seal(&stolen)), "entry"},
			{"signed by a master", entries(hostileName, seal(h.id)), "entry"},
			{"signed by a foreign CA's node", entries(hostileName, seal(foreign)), "entry"},
			{"signed by a revoked node", entries(hostileName, seal(revoked)), "entry"},
			{"signed by an expired node", entries(hostileName, seal(expired)), "entry"},
			{"signed by a node to come", entries(hostileName, seal(early)), "entry"},
			{"a node's signature under a report", entries(hostileName, sealed(t, one, "report", flipped)), "entry"},
			{"a node's signature under a call", entries(hostileName, sealed(t, one, "call", flipped)), "entry"},
			{"changed after it was signed", entries(hostileName, changed), "entry"},
			{"three hundred entries at once", entries(hostileName, many...), "entry"},
			{"an entry that is none", entries(hostileName, sealed(t, one, "register entry", []byte(`{"key":"camaster"}`))), "entry"},
			{"no entries", object{"entries": object{}}, "entry"},

			{"a report in another's name", object{"report": sealed(t, h.id, "report", deflated(t, report))}, "report"},
			{"a report of a node that is none", object{"report": sealed(t, h.id, "report", deflated(t, with(report, "observer", hostileName)))}, "report"},
			{"a master's report that announces another", object{"report": sealed(t, h.id, "report", deflated(t, with(report, "observer", hostileName, "role", "master", "announce", object{"host": "m1.example.net."})))}, "report"},
			{"a report under the seal of a sign of life", object{"report": sealed(t, one, "beat", deflated(t, report))}, "report"},
			{"a report that inflates without end", object{"report": sealed(t, one, "report", deflated(t, make([]byte, 64<<20)))}, "report"},
			{"a report that is good but for its length", object{"report": sealed(t, one, "report", deflated(t, long))}, "report"},
			{"a master's report in another's name", object{"report": sealed(t, h.id, "report", deflated(t, with(report, "role", "master")))}, "report"},
			{"a report that is none", object{"report": sealed(t, one, "report", []byte("x"))}, "report"},
			{"a report without a seal", object{"report": object{"payload": deflated(t, report)}}, "report"},
			{"a sign of life in another's name", object{"beat": sealed(t, h.id, "beat", object{"observer": "ns2.example.net", "boot": 1 << 60, "seq": 1, "beat": 1})}, "report"},
			{"a sign of life without a seal", object{"beat": object{}}, "report"},

			{"a call of a master", object{"call": sealed(t, h.id, "call", call)}, "call"},
			{"a call of a revoked node", object{"call": sealed(t, revoked, "call", call)}, "call"},
			{"a call of a foreign CA's node", object{"call": sealed(t, foreign, "call", call)}, "call"},
			{"a call of last year", object{"call": sealed(t, one, "call", with(call, "time", now.AddDate(-1, 0, 0)))}, "call"},
			{"a call of next year", object{"call": sealed(t, one, "call", with(call, "time", now.AddDate(1, 0, 0)))}, "call"},
			{"a node's reply as a call", object{"call": sealed(t, one, "reply", call)}, "call"},
			{"a call to another", object{"call": sealed(t, one, "call", with(call, "to", "ns2.example.net"))}, ""},
			{"a reply in another's name", object{"reply": sealed(t, h.id, "reply", object{"id": 7, "from": "ns2.example.net", "to": "ns1.example.net"})}, "reply"},
			{"a reply that nobody waits for", object{"reply": sealed(t, h.id, "reply", object{"id": 7, "from": hostileName, "to": "ns1.example.net"})}, ""},

			{"garbage", []byte("\x00\xff garbage"), "message"},
			{"nothing", []byte{}, "message"},
			{"a megabyte of garbage", bytes.Repeat([]byte{'x'}, gossip.MaxMessage), "message"},
			{"a list", []byte("[]"), "message"},
			{"deep", []byte(`{"summary":` + strings.Repeat(`[`, 500_000)), "message"},
			{"deep in a report", object{"report": sealed(t, one, "report", deflated(t, []byte(strings.Repeat(`{"a":`, 500_000))))}, "report"},
			{"null", []byte("null"), ""},
			{"a part of tomorrow", []byte(`{"of_tomorrow":{}}`), ""},
			{"a summary that has nothing", object{"summary": object{"from": "ns2.example.net"}}, ""},
			{"a summary of nobody", object{"summary": object{}}, ""},
			{"a summary that has everything", object{"summary": object{"from": "ns2.example.net", "registers": object{"camaster": make([]byte, 12)}, "reports": object{"ns1.example.net": []uint64{1, 1 << 63}, "ns2.example.net": []uint64{1 << 63, 1 << 63}}}}, ""},
			{"a summary with absurd boots", object{"summary": object{"from": hostileName, "reports": object{"ns1.example.net": []uint64{uint64(now.AddDate(9, 0, 0).UnixMicro()), 1}}}}, ""},
			{"a summary with more absurd boots", object{"summary": object{"from": hostileName, "reports": object{"ns1.example.net": []uint64{1<<64 - 1, 1<<64 - 1}}}}, ""},
		} {
			func() {
				before := belief(t, s, "ns1.example.net")
				_, counted := s.nodes["ns1.example.net"].Stats()
				h.send("ns1.example.net", tt.message)
				time.Sleep(time.Second)
				if after := belief(t, s, "ns1.example.net"); after != before {
					t.Errorf("%s: ns1 believed\n%s and now\n%s", tt.name, before, after)
				}
				_, now := s.nodes["ns1.example.net"].Stats()
				for kind, n := range now {
					if want := counted[kind]; kind == tt.counted && n != want+1 || kind != tt.counted && n != want {
						t.Errorf("%s: %d are counted as %s, before there were %d", tt.name, n, kind, want)
					}
				}
				if tt.counted != "" && now[tt.counted] == 0 {
					t.Errorf("%s: not counted: %v", tt.name, now)
				}
			}()
		}
	})
}

// What a member overheard and sends again changes nothing.
func TestReplayed(t *testing.T) {
	besieged(t, func(t *testing.T, s *site, h *hostile) {
		one, two := s.nodes["ns1.example.net"], s.nodes["ns2.example.net"]
		s.write("ns2.example.net", flip("m1.example.net.", "heard"))
		two.Publish(cluster.Report{Release: "old"})
		h.send("ns2.example.net", object{"summary": object{"from": hostileName}}) // asks for what it lacks
		time.Sleep(10 * time.Second)
		entries, report, beat := h.last("entries", "ns2.example.net"), h.last("report", "ns2.example.net"), h.last("beat", "ns2.example.net")
		if entries == nil || report == nil || beat == nil {
			t.Fatalf("the hostile member, which says it is a node, has overheard only %v", h.got)
		}
		s.write("ns1.example.net", flip("m2.example.net.", "newer"))
		two.Publish(cluster.Report{Release: "new"})
		time.Sleep(10 * time.Second)
		before := belief(t, s, "ns1.example.net")
		for _, m := range []any{entries, report, beat} {
			h.send("ns1.example.net", m)
		}
		time.Sleep(time.Second)
		if after := belief(t, s, "ns1.example.net"); after != before {
			t.Errorf("ns1 believed\n%s and now\n%s", before, after)
		}
		// The dead do not live by their old words.
		s.crash("ns2.example.net")
		time.Sleep(time.Minute)
		for range 60 {
			for _, part := range []string{"report", "beat"} {
				h.send("ns1.example.net", h.last(part, "ns2.example.net"))
			}
			time.Sleep(time.Second)
		}
		for _, p := range one.Peers() {
			if p.Name == "ns2.example.net" && (p.Fresh || time.Since(p.Heard) < time.Minute) {
				t.Errorf("%s is fresh %v, heard %v ago", p.Name, p.Fresh, time.Since(p.Heard))
			}
		}
		s.start("ns2.example.net")
		s.publish()
		s.heard()
	})
}

// heard waits until the nodes have each other's reports.
func (s *site) heard() {
	s.t.Helper()
	s.until("both are heard", 30*time.Second, func() bool {
		for _, c := range s.nodes {
			fresh := 0
			for _, p := range c.Peers() {
				if p.Fresh {
					fresh++
				}
			}
			if fresh != len(s.nodes) {
				return false
			}
		}
		return true
	})
}

// A call is done once: also if the key that it added was removed since, and also by a
// node that was started again in between.
func TestACallIsNotDoneTwice(t *testing.T) {
	besieged(t, func(t *testing.T, s *site, h *hostile) {
		key := bytes.Repeat([]byte{7}, 32)
		call := object{"id": 1, "from": "ns2.example.net", "to": "ns1.example.net", "boot": time.Now().UnixMicro(), "seq": 1000, "time": time.Now(), "op": "add-key", "arg": key}
		overheard := object{"call": sealed(t, s.ids["ns2.example.net"], "call", call)}
		ring := func() (ids []string) {
			rings, err := s.nodes["ns1.example.net"].Keys(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rings {
				if r.Name == "ns1.example.net" {
					for _, k := range r.Keys {
						ids = append(ids, k.ID)
					}
				}
			}
			return ids
		}
		h.send("ns1.example.net", overheard)
		time.Sleep(time.Second)
		if len(ring()) != 2 {
			t.Fatalf("the call itself was not done: %v", ring())
		}
		if _, err := s.nodes["ns1.example.net"].RemoveKey(t.Context(), ring()[1]); err != nil {
			t.Fatal(err)
		}
		h.send("ns1.example.net", overheard)
		time.Sleep(time.Second)
		if len(ring()) != 1 {
			t.Error("the call was done again")
		}
		s.crash("ns1.example.net")
		s.start("ns1.example.net")
		s.publish()
		s.heard()
		h.send("ns1.example.net", overheard)
		time.Sleep(time.Second)
		if len(ring()) != 1 {
			t.Error("the call was done again after a restart")
		}
	})
}

// A member that says it is a node and is none acknowledges nothing.
func TestAForgedAcknowledgement(t *testing.T) {
	besieged(t, func(t *testing.T, s *site, h *hostile) {
		h.acknowledge()
		r, err := s.nodes["ns1.example.net"].Write(t.Context(), flip("m1.example.net.", "drill"), cluster.WaitAll)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range r.Answers {
			if a.Name == hostileName && a.Err == nil {
				t.Errorf("%s has acknowledged a write, and is no node", a.Name)
			}
			if a.Name != hostileName && a.Err != nil {
				t.Errorf("%s: %v", a.Name, a.Err)
			}
		}
		// With the other node away there is no majority.
		s.crash("ns2.example.net")
		s.until("ns2 is known to be dead", 30*time.Second, func() bool {
			return slices.ContainsFunc(s.nodes["ns1.example.net"].Peers(), func(p cluster.Peer) bool { return p.Name == "ns2.example.net" && p.Status == gossip.Dead })
		})
		r, err = s.nodes["ns1.example.net"].Write(t.Context(), flip("m2.example.net.", "drill"), cluster.WaitMajority)
		if err != nil || r.Met {
			t.Errorf("a majority is met by ns1 and %s: %+v, %v", hostileName, r.Answers, err)
		}
		s.start("ns2.example.net")
		s.publish()
		s.heard()
	})
}

// acknowledge has the hostile member acknowledge whatever it gets, at once.
func (h *hostile) acknowledge() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = func(e object) any {
		return object{"reply": sealed(h.s.t, h.id, "reply", object{"id": e["id"], "from": hostileName, "to": e["from"]})}
	}
}

// A flood costs time, and no memory: neither ten thousand entries that are refused,
// nor summaries that ask for everything, in another's name.
func TestAFlood(t *testing.T) {
	besieged(t, func(t *testing.T, s *site, h *hostile) {
		n := 1000
		if raced {
			n = 200
		}
		for i := range 20 {
			s.write("ns1.example.net", cluster.Change{
				Key: fmt.Sprintf("%sm%d.example.net.", register.DrainPrefix, i), Actor: "ops", Reason: "drill",
				Value: json.RawMessage(`{"filler":"` + strings.Repeat("x", 3000) + `"}`),
			})
		}
		before := content(s.nodes["ns1.example.net"].Registers())
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		forged := slices.Repeat([]trust.Sealed{sealed(t, h.id, "register entry", entryOf(t, time.Now()))}, 100)
		flood := func(what string, n int, message any) {
			begin, goroutines, most := heap(), runtime.NumGoroutine(), 0
			for range n {
				h.send("ns1.example.net", message)
				most = max(most, runtime.NumGoroutine()-goroutines)
			}
			time.Sleep(10 * time.Millisecond)
			most = max(most, runtime.NumGoroutine()-goroutines)
			peak := heap()
			time.Sleep(10 * time.Second)
			after := heap()
			t.Logf("%d messages with %s: heap from %d over %d to %d kB, at most %d goroutines more", n, what, begin>>10, peak>>10, after>>10, most)
			if peak > begin+32<<20 || after > begin+8<<20 {
				t.Errorf("%s: the heap grew from %d over %d to %d bytes", what, begin, peak, after)
			}
			if most > 500 {
				t.Errorf("%s: %d goroutines at once", what, most)
			}
		}
		flood("forged entries", n/10, entries(hostileName, forged...))
		flood("summaries", n/4, object{"summary": object{"from": "ns2.example.net"}})
		s.network.Partition(addrs(s, "ns2.example.net")) // before anybody knows it
		flood("summaries in the name of one that does not answer", n, object{"summary": object{"from": "ns2.example.net"}})
		s.network.Heal()
		s.heard()
		if got := content(s.nodes["ns1.example.net"].Registers()); got != before {
			t.Errorf("registers have changed")
		}
	})
}

// A node that is down is not brought back by a tape of what it said: its name is taken,
// its old report and its signs of life are played to a node that was started since.
func TestAnOldTape(t *testing.T) {
	besieged(t, func(t *testing.T, s *site, h *hostile) {
		s.nodes["ns2.example.net"].Publish(cluster.Report{Release: "old", Masters: []cluster.Observed{{Host: "m1.example.net.", Down: true}}})
		var tape []any
		for range 12 {
			time.Sleep(5 * time.Second)
			tape = append(tape, h.last("report", "ns2.example.net"), h.last("beat", "ns2.example.net"))
		}
		s.crash("ns2.example.net")
		s.crash("ns1.example.net")
		time.Sleep(9 * time.Hour)
		s.start("ns1.example.net")
		s.publish()
		g := *s.config("impostor").Gossip
		g.Name, g.Meta, g.Join, g.Delegate = "ns2.example.net", []byte(`{"role":"node"}`), s.seeds, h
		impostor, err := gossip.Start(g)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		fresh := 0
		for i, m := range tape {
			h.send("ns1.example.net", m)
			if time.Sleep(time.Second); i%2 == 0 {
				continue
			}
			time.Sleep(4 * time.Second)
			for _, p := range s.nodes["ns1.example.net"].Peers() {
				if p.Name == "ns2.example.net" && p.Fresh {
					fresh++
				}
			}
		}
		if fresh > 0 {
			t.Errorf("what ns2 said nine hours ago counts again, for %d s", 5*fresh)
		}
		impostor.Close()
		s.start("ns2.example.net")
		s.publish()
		s.heard()
	})
}
