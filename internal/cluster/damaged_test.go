package cluster_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// startOn starts a node on another disk than its own.
func (s *site) startOn(name string, d cluster.Disk) *cluster.Cluster {
	s.t.Helper()
	cfg := s.config(name)
	cfg.Disk = d
	c, err := cluster.Start(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.nodes[name] = c
	return c
}

// A damaged file is left as it is, byte for byte; nothing is written here, what the
// others know holds in memory, and without the file everything is learned again.
func TestADamagedFile(t *testing.T) {
	for name, damage := range map[string]func(good []byte) []byte{
		"empty":            func([]byte) []byte { return []byte{} },
		"cut":              func(good []byte) []byte { return good[:len(good)-20] },
		"cut in the front": func(good []byte) []byte { return good[20:] },
		"zeros":            func(good []byte) []byte { return make([]byte, len(good)) },
		"a byte changed": func(good []byte) []byte {
			bad := bytes.Clone(good)
			i := bytes.Index(bad, []byte(`"payload":"`)) + 20
			bad[i] ^= 1
			return bad
		},
		"twice":              func(good []byte) []byte { return append(bytes.Clone(good), good...) },
		"an object":          func([]byte) []byte { return []byte(`{}`) },
		"null":               func([]byte) []byte { return []byte(`null`) },
		"of a later format":  func(good []byte) []byte { return bytes.Replace(good, []byte(`"format":1`), []byte(`"format":2`), 1) },
		"without a checksum": func(good []byte) []byte { return bytes.Replace(good, []byte(`"sha256":"`), []byte(`"sha257":"`), 1) },
		"without certificates": func(good []byte) []byte {
			return bytes.Replace(good, []byte(`"certificates":`), []byte(`"certificate":`), 1)
		},
		"another certificate's": func(good []byte) []byte {
			return bytes.Replace(good, []byte(`"certificates":["`), []byte(`"certificates":["AAAA`), 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 2, func(t *testing.T, s *site) {
				s.log = quietLog{}
				s.write("ns1.example.net", flip("m3.example.net.", "drill"))
				s.write("ns2.example.net", flip("m4.example.net.", "drill"))
				s.crash("ns2.example.net")
				d := s.disks["ns2.example.net"]
				bad := damage(d.files["registers.json"])
				d.files["registers.json"] = bytes.Clone(bad)
				s.network.Partition(addrs(s, "ns2.example.net"))
				two := s.start("ns2.example.net")
				if n := two.Registers().Len(); n != 0 {
					t.Errorf("it begins with %d registers", n)
				}
				refused := func() {
					t.Helper()
					damaged, err := two.Problem()
					if !damaged || err == nil || !strings.Contains(err.Error(), "registers.json cannot be used, and is left as it is") {
						t.Errorf("damaged %v, problem %v", damaged, err)
					}
					held := content(two.Registers())
					if _, err := two.Write(t.Context(), flip("m5.example.net.", "drill"), cluster.WaitNone); err == nil || !strings.Contains(err.Error(), "registers.json cannot be used, and is left as it is") {
						t.Errorf("a write: %v", err)
					}
					if got := content(two.Registers()); got != held {
						t.Errorf("a refused write has changed\n%s to\n%s", held, got)
					}
					if _, err := two.Problem(); err == nil {
						t.Error("the problem is gone")
					}
					if now, err := d.Read("registers.json"); err != nil || !bytes.Equal(now, bad) {
						t.Error("the damaged file was changed")
					}
				}
				refused()
				s.network.Heal()
				s.until("it learns", 20*time.Second, func() bool { return camaster(two) == "m4.example.net. 0.2.ns2.example.net" })
				refused()
				// What others write holds, and is not acknowledged.
				r := s.write("ns1.example.net", flip("m6.example.net.", "drill"))
				if r.Met || len(r.Answers) != 1 || r.Answers[0].Err == nil || !strings.Contains(r.Answers[0].Err.Error(), "cannot be used") {
					t.Errorf("%+v", r)
				}
				if got := camaster(two); got != "m6.example.net. 0.3.ns1.example.net" {
					t.Errorf("it holds %q", got)
				}
				time.Sleep(2 * time.Minute)
				refused()
				// Removed, it learns; and that lasts.
				s.crash("ns2.example.net")
				delete(d.files, "registers.json")
				two = s.start("ns2.example.net")
				s.until("it learns again", 20*time.Second, func() bool { return camaster(two) == "m6.example.net. 0.3.ns1.example.net" })
				s.until("the disk has it", 5*time.Second, func() bool {
					_, err := two.Problem()
					return err == nil && content(onDisk(t, d)) == content(two.Registers())
				})
				s.crash("ns2.example.net")
				s.network.Partition(addrs(s, "ns2.example.net"))
				if got := camaster(s.start("ns2.example.net")); got != "m6.example.net. 0.3.ns1.example.net" {
					t.Errorf("after a restart it holds %q", got)
				}
			})
		})
	}
}

// The list of members is less: damaged, it is left as it is, and learned anew.
func TestADamagedListOfMembers(t *testing.T) {
	bubble(t, 2, func(t *testing.T, s *site) {
		s.log = quietLog{}
		time.Sleep(2 * time.Second)
		s.crash("ns1.example.net")
		d := s.disks["ns1.example.net"]
		for _, bad := range []string{"", "{", `{"format":2}`, `{"format":1,"nodes":7}`} {
			d.files["cluster.json"] = []byte(bad)
			s.start("ns1.example.net").Publish(cluster.Report{Release: bad})
			s.until("it is heard", 30*time.Second, func() bool {
				for _, p := range s.nodes["ns2.example.net"].Peers() {
					if p.Name == "ns1.example.net" && p.Fresh && p.Report.Release == bad {
						return true
					}
				}
				return false
			})
			s.write("ns1.example.net", flip("m3.example.net.", "drill"))
			time.Sleep(5 * time.Second)
			s.crash("ns1.example.net")
			if got := string(d.files["cluster.json"]); got != bad {
				t.Errorf("%q was changed to %q", bad, got)
			}
		}
		s.start("ns1.example.net")
	})
}

// gated is a disk whose writes of registers wait until they are let through.
type gated struct {
	disk
	arrived chan struct{} // one for each write that waits
	let     chan error    // lets one through, or fails it
}

func (g *gated) Write(name string, data []byte) error {
	if name == "registers.json" {
		g.arrived <- struct{}{}
		if err := <-g.let; err != nil {
			return err
		}
	}
	return g.disk.Write(name, data)
}

// alone starts a cluster of one on a disk.
func alone(t testing.TB, p *pki, name string, d cluster.Disk, changed func()) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Start(cluster.Config{
		Name: name, Role: cluster.RoleNode, Identity: p.identity(name), Authority: p.authority, Disk: d, Log: quietLog{}, Changed: changed,
		Policy: cluster.Policy{Signers: isNode},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// message is what a node would send to have entries known.
func message(t testing.TB, p *pki, node string, es ...register.Entry) []byte {
	t.Helper()
	id := p.identity(node)
	m := entries(node)
	m["entries"].(object)["id"] = 0 // nobody waits for an acknowledgement
	for _, e := range es {
		payload, err := register.Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		one := entries(node, sealed(t, id, "register entry", payload))["entries"].(object)
		all := m["entries"].(object)
		all["certificates"] = one["certificates"]
		all["entries"] = append(all["entries"].([]object), one["entries"].([]object)...)
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func entryBy(node, key, to string, counter uint64, parent register.Version) register.Entry {
	return register.Entry{
		Key: key, Value: json.RawMessage(`{"host":"` + to + `"}`), Version: register.Version{Counter: counter, Node: node}, Parent: parent,
		Time: time.Now().UTC(), Actor: "ops", Reason: "drill",
	}
}

// While the disk hangs, what others write holds at once, and nothing of it is lost
// when the disk goes on: neither from memory, nor from the file.
func TestADiskThatHangs(t *testing.T) {
	g := &gated{disk: disk{files: make(map[string][]byte)}, arrived: make(chan struct{}, 1), let: make(chan error)}
	p := newPKI(t)
	changed := make(chan struct{}, 100)
	c := alone(t, p, "ns1.example.net", g, func() { changed <- struct{}{} })
	type outcome struct {
		r   cluster.Result
		err error
	}
	wrote := make(chan outcome, 1)
	go func() {
		r, err := c.Write(context.Background(), flip("m1.example.net.", "own"), cluster.WaitAll)
		wrote <- outcome{r, err}
	}()
	soon(t, g.arrived)
	go cluster.Receive(c, message(t, p, "ns2.example.net", entryBy("ns2.example.net", "camaster", "m7.example.net.", 7, register.Version{})))
	soon(t, changed)
	if got := camaster(c); got != "m7.example.net. 0.7.ns2.example.net" {
		t.Errorf("while the disk hangs it holds %q", got)
	}
	select {
	case o := <-wrote:
		t.Fatalf("written before the disk had it: %+v", o)
	default:
	}
	g.let <- nil
	if o := <-wrote; o.err != nil || o.r.Entry.Version.Counter != 1 {
		t.Fatalf("%+v", o)
	}
	has := func(s register.State, counters ...uint64) bool {
		var got []uint64
		for _, e := range s.History("camaster") {
			got = append(got, e.Version.Counter)
		}
		return slices.Equal(got, counters)
	}
	if s := c.Registers(); !has(s, 7, 1) {
		t.Errorf("it holds\n%s", content(s))
	}
	// What was learned meanwhile gets to the disk by itself.
	soon(t, g.arrived)
	g.let <- nil
	for end := time.Now().Add(20 * time.Second); !has(onDisk(t, &g.disk), 7, 1); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the disk has\n%s", content(onDisk(t, &g.disk)))
		}
	}
	// A writer without patience is told that it is not known; here it is written.
	impatient, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() {
		<-g.arrived
		cancel()
	}()
	if _, err := c.Write(impatient, flip("m8.example.net.", "later"), cluster.WaitAll); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "not known") {
		t.Errorf("err %v", err)
	}
	g.let <- nil
	for end := time.Now().Add(20 * time.Second); !has(c.Registers(), 8, 7, 1); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it holds\n%s", content(c.Registers()))
		}
	}
	c.Close()
}

// soon waits for what must happen.
func soon(t testing.TB, event <-chan struct{}) {
	t.Helper()
	select {
	case <-event:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not happen")
	}
}

// onDisk is what a file has.
func onDisk(t testing.TB, d cluster.Disk) register.State {
	t.Helper()
	data, err := d.Read("registers.json")
	if err != nil {
		return register.State{}
	}
	var file struct{ Registers json.RawMessage }
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	es, err := register.DecodeState(file.Registers)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := register.State{}.Merge(es...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// There are as many keys as there may be. One more is refused, counted, and what
// comes with it holds all the same, at once and over a restart.
func TestTooManyKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := newPKI(t), newDisk()
		d.files["registers.json"] = manyKeys(t, p, register.MaxKeys)
		changes := 0
		var mu sync.Mutex
		c := alone(t, p, "ns1.example.net", d, func() { mu.Lock(); defer mu.Unlock(); changes++ })
		if n := c.Registers().Len(); n != register.MaxKeys {
			t.Fatalf("%d keys", n)
		}
		synctest.Wait()
		mu.Lock()
		before := changes
		mu.Unlock()
		key := register.DrainPrefix + "m7"
		v := c.Registers().Version(key)
		cluster.Receive(c, message(t, p, "ns2.example.net", entryBy("ns2.example.net", "one/more", "m1", 1, register.Version{}), entryBy("ns2.example.net", key, "m2", 2, v)))
		synctest.Wait()
		if _, refused := c.Stats(); refused["entry"] != 1 {
			t.Errorf("refused: %v", refused)
		}
		if n, counter := c.Registers().Len(), c.Registers().Version(key).Counter; n != register.MaxKeys || counter != 2 {
			t.Errorf("%d keys, and %s has the number %d", n, key, counter)
		}
		mu.Lock()
		if changes == before {
			t.Error("nobody is told of what came with it")
		}
		mu.Unlock()
		c.Close()
		c = alone(t, p, "ns1.example.net", d, nil)
		defer c.Close()
		if damaged, err := c.Problem(); damaged || c.Registers().Version(key).Counter != 2 {
			t.Errorf("after a restart: %v, %v", err, c.Registers().Version(key))
		}
	})
}

// manyKeys is a file with n drains.
func manyKeys(t testing.TB, p *pki, n int) []byte {
	t.Helper()
	id := p.identity("ns2.example.net")
	print := sha256.Sum256(id.Leaf.Raw)
	var es []register.Entry
	for i := range n {
		payload, err := register.Encode(entryBy("ns2.example.net", fmt.Sprintf("%sm%d", register.DrainPrefix, i), "m1", 1, register.Version{}))
		if err != nil {
			t.Fatal(err)
		}
		e, err := register.Decode(payload, append(print[:], sealed(t, id, "register entry", payload).Signature...))
		if err != nil {
			t.Fatal(err)
		}
		es = append(es, e)
	}
	s, _, err := register.State{}.Merge(es...)
	if err != nil {
		t.Fatal(err)
	}
	state, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	file, err := json.Marshal(object{"certificates": [][]byte{id.Leaf.Raw}, "registers": json.RawMessage(state)})
	if err != nil {
		t.Fatal(err)
	}
	return file
}
