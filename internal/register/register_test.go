package register_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/puppetsrv/puppetsrv/internal/register"
)

var t0 = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func entry(t rapid.TB, key, to string, v, parent register.Version) register.Entry {
	t.Helper()
	payload, err := register.Encode(register.Entry{
		Key: key, Value: json.RawMessage(`{"to":"` + to + `"}`), Version: v, Parent: parent,
		Time: t0, Actor: "ops", Reason: "drill",
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := register.Decode(payload, []byte("seal"))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func version(s string) register.Version {
	v, err := register.ParseVersion(s)
	if err != nil {
		panic(err)
	}
	return v
}

// drawEntries draws writes as they can come to be: any version, with a parent
// that is older.
func drawEntries(t *rapid.T, label string) []register.Entry {
	var es []register.Entry
	for i := range rapid.IntRange(0, 60).Draw(t, label) {
		name := func(s string) string { return fmt.Sprintf("%s %d %s", label, i, s) }
		v := register.Version{
			Epoch:   uint32(rapid.IntRange(0, 1).Draw(t, name("epoch"))),
			Counter: uint64(rapid.IntRange(1, 40).Draw(t, name("counter"))),
			Node:    rapid.SampledFrom([]string{"ns1", "ns2", "ns3"}).Draw(t, name("node")),
		}
		parent := register.Version{Counter: uint64(rapid.IntRange(0, int(v.Counter)-1).Draw(t, name("parent"))), Node: "ns1"}
		if parent.Counter == 0 {
			parent = register.Version{}
		}
		key := rapid.SampledFrom([]string{"camaster", "drain/m1.example.net.", "quota/x"}).Draw(t, name("key"))
		es = append(es, entry(t, key, rapid.SampledFrom([]string{"m1", "m2"}).Draw(t, name("to")), v, parent))
	}
	return es
}

func state(t rapid.TB, es []register.Entry) register.State {
	s, _, err := register.State{}.Merge(es...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func merge(t rapid.TB, a, b register.State) register.State {
	s, _, err := a.Merge(slices.Collect(b.All())...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func bytesOf(t rapid.TB, s register.State) string {
	data, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMergeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := state(t, drawEntries(t, "a")), state(t, drawEntries(t, "b")), state(t, drawEntries(t, "c"))
		if bytesOf(t, merge(t, a, a)) != bytesOf(t, a) {
			t.Fatal("merge is not idempotent")
		}
		ab := merge(t, a, b)
		if bytesOf(t, ab) != bytesOf(t, merge(t, b, a)) {
			t.Fatal("merge is not commutative")
		}
		if bytesOf(t, merge(t, ab, c)) != bytesOf(t, merge(t, a, merge(t, b, c))) {
			t.Fatal("merge is not associative")
		}
		if !ab.Contains(a) || !ab.Contains(b) {
			t.Fatal("a merge does not contain what was merged")
		}
		if empty := (register.State{}); bytesOf(t, merge(t, a, empty)) != bytesOf(t, a) || bytesOf(t, merge(t, empty, a)) != bytesOf(t, a) {
			t.Fatal("an empty state changed something")
		}
	})
}

// However entries come, in whatever order, one by one, twice: the result is the
// newest of each key, and a register never goes back.
func TestMergeOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		es := drawEntries(t, "entries")
		want := bytesOf(t, state(t, es))
		var s register.State
		for _, e := range append(rapid.Permutation(es).Draw(t, "order"), rapid.Permutation(es).Draw(t, "again")...) {
			before := s.Version(e.Key)
			held := s.Holds(&e)
			next, added, err := s.Merge(e)
			if err != nil {
				t.Fatal(err)
			}
			if next.Version(e.Key).Compare(before) < 0 {
				t.Fatalf("%s went from %s to %s", e.Key, before, next.Version(e.Key))
			}
			if got := len(added) == 1; got != (!held && next.Holds(&e)) {
				t.Fatalf("added %v, was held %v, is held %v", got, held, next.Holds(&e))
			}
			s = next
		}
		if bytesOf(t, s) != want {
			t.Fatal("the order of arrival matters")
		}
		for _, e := range es {
			if top, _ := s.Get(e.Key); top.Compare(&e) < 0 {
				t.Fatalf("%s is the newest of %s, but there is %s", top.Version, e.Key, e.Version)
			}
		}
		for _, k := range s.Keys() {
			if h := s.History(k); len(h) > register.Kept(k) || !slices.IsSortedFunc(h, func(a, b register.Entry) int { return b.Compare(&a) }) {
				t.Fatalf("the history of %s is %d long, or in disorder", k, len(h))
			}
		}
	})
}

// A state is a value: merging into it gives another one.
func TestMergeChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := state(t, drawEntries(t, "a")), state(t, drawEntries(t, "b"))
		before := bytesOf(t, a)
		m := merge(t, a, b)
		for e := range b.All() {
			m.Reseal(e.WithSeal([]byte("other")))
		}
		if bytesOf(t, a) != before {
			t.Fatal("merging changed a state")
		}
	})
}

func TestOrder(t *testing.T) {
	ordered := []string{"0", "0.1.ns1", "0.1.ns2", "0.2.ns1", "0.10.ns1", "1.1.ns1", "1.2.a", "2.1.a"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got, want := version(a).Compare(version(b)), i-j; got > 0 != (want > 0) || got < 0 != (want < 0) {
				t.Errorf("%s against %s: %d", a, b, got)
			}
		}
	}
	for _, s := range []string{"", "1", "1.2", "1.2.", "0.0.ns1", "-1.2.ns1", "01.2.ns1", "1.2.a b", "4294967296.1.a", "1.18446744073709551616.a", "0.1.ns1 ", "1.2.a/b", "1.2." + strings.Repeat("a", 256)} {
		if v, err := register.ParseVersion(s); err == nil {
			t.Errorf("%q is taken for %s", s, v)
		}
	}
}

func TestNextVersion(t *testing.T) {
	tests := []struct {
		from, node string
		forced     bool
		want       string
	}{
		{"0", "ns1", false, "0.1.ns1"},
		{"0.1.ns1", "ns2", false, "0.2.ns2"},
		{"0.1.ns1", "ns2", true, "1.2.ns2"},
		{"3.7.ns9", "ns1", false, "3.8.ns1"},
		{"0.18446744073709551614.a", "ns1", false, ""},
		{"4294967295.1.a", "ns1", true, ""},
	}
	for _, tt := range tests {
		v, err := version(tt.from).Next(tt.node, tt.forced)
		if tt.want == "" {
			if err == nil {
				t.Errorf("after %s comes %s", tt.from, v)
			}
			continue
		}
		if err != nil || v.String() != tt.want || v.Compare(version(tt.from)) <= 0 {
			t.Errorf("after %s forced %v: %s, %v; want %s", tt.from, tt.forced, v, err, tt.want)
		}
	}
}

func TestUnknownFindsWhatAWriterDidNotSee(t *testing.T) {
	tests := []struct {
		name   string
		writes [][2]string // version, parent
		of     string
		want   string
	}{
		{"one after the other", [][2]string{{"0.1.ns1", "0"}, {"0.2.ns2", "0.1.ns1"}}, "0.2.ns2", ""},
		{"at once", [][2]string{{"0.1.ns1", "0"}, {"0.1.ns2", "0"}}, "0.1.ns2", "0.1.ns1"},
		{"the loser knows no conflict", [][2]string{{"0.1.ns1", "0"}, {"0.1.ns2", "0"}}, "0.1.ns1", ""},
		{"two on one side, three on the other", [][2]string{{"0.1.ns1", "0"}, {"0.2.ns1", "0.1.ns1"}, {"0.3.ns1", "0.2.ns1"}, {"0.2.ns2", "0.1.ns1"}, {"0.3.ns2", "0.2.ns2"}}, "0.3.ns2", "0.3.ns1"},
		{"forced over a longer story", [][2]string{{"0.1.ns1", "0"}, {"0.2.ns1", "0.1.ns1"}, {"1.2.ns2", "0.1.ns1"}}, "1.2.ns2", "0.2.ns1"},
		{"settled by the next", [][2]string{{"0.1.ns1", "0"}, {"0.1.ns2", "0"}, {"0.2.ns1", "0.1.ns2"}}, "0.2.ns1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var es []register.Entry
			for _, w := range tt.writes {
				es = append(es, entry(t, "camaster", "m1", version(w[0]), version(w[1])))
			}
			h := state(t, es).History("camaster")
			i := slices.IndexFunc(h, func(e register.Entry) bool { return e.Version == version(tt.of) })
			var got []string
			for _, e := range register.Unknown(h, &h[i]) {
				got = append(got, e.Version.String())
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// What a newer release writes goes through this one unchanged: fields it does
// not know, in a key it does not know.
func TestUnknownFieldsSurvive(t *testing.T) {
	payload := []byte(`{"key":"quota/x","value":{"to":"m1","of_tomorrow":[1,2]},"version":"0.1.ns1","parent":"0","time":"2026-11-22T00:00:00Z","actor":"ops","reason":"drill","of_tomorrow":{"a":1}}`)
	e, err := register.Decode(payload, []byte{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	data, err := state(t, []register.Entry{e}).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	es, err := register.DecodeState(data)
	if err != nil || len(es) != 1 || string(es[0].Payload()) != string(payload) || string(es[0].Seal()) != "\x01\x02" {
		t.Errorf("came back as %v, %v", es, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := map[string]any{"key": "camaster", "value": map[string]any{}, "version": "0.2.ns1", "parent": "0.1.ns1", "time": t0, "actor": "ops", "reason": "drill"}
	if data, _ := json.Marshal(good); true {
		if _, err := register.Decode(data, nil); err != nil {
			t.Fatal(err)
		}
	}
	for field, bad := range map[string][]any{
		"key":     {"", "a b", strings.Repeat("k", 513), "\x00", 1},
		"value":   {nil, 1, "x", []int{}},
		"version": {"0", "0.1.ns1", "x", 7},
		"parent":  {"0.3.ns1", "0.2.ns1", "1.1.ns1"},
		"time":    {"yesterday", "0001-01-01T00:00:00Z"},
		"actor":   {"", strings.Repeat("a", 256), "a\nb"},
		"reason":  {"", strings.Repeat("a", 501), "a\x1b[31m"},
	} {
		for _, v := range bad {
			m := map[string]any{}
			for k, v := range good {
				m[k] = v
			}
			m[field] = v
			data, _ := json.Marshal(m)
			if e, err := register.Decode(data, nil); err == nil {
				t.Errorf("%s %q is taken: %+v", field, v, e)
			}
		}
	}
	good["filler"] = strings.Repeat("x", register.MaxPayload)
	data, _ := json.Marshal(good)
	if _, err := register.Decode(data, nil); err == nil {
		t.Error("an oversized entry is taken")
	}
}

// A state is read whole or not at all: whichever byte is changed or cut.
func TestADamagedStateIsRefused(t *testing.T) {
	s := state(t, []register.Entry{
		entry(t, "camaster", "m1", version("0.1.ns1"), version("0")),
		entry(t, "camaster", "m2", version("0.2.ns1"), version("0.1.ns1")),
		entry(t, "drain/m1.example.net.", "m2", version("0.1.ns1"), version("0")),
	})
	data := []byte(bytesOf(t, s))
	again := func(data []byte) (string, bool) {
		es, err := register.DecodeState(data)
		if err != nil {
			return "", false
		}
		return bytesOf(t, state(t, es)), true
	}
	if got, ok := again(data); !ok || got != string(data) {
		t.Fatal("a state does not come back as it was")
	}
	for i := range data {
		for _, flip := range []byte{1, 0x20, 0x80} {
			bad := slices.Clone(data)
			bad[i] ^= flip
			if got, ok := again(bad); ok && got != string(data) {
				t.Fatalf("byte %d changed from %q to %q and it was taken", i, data[i], bad[i])
			}
		}
		if _, ok := again(data[:i]); ok {
			t.Fatalf("cut after %d of %d bytes and it was taken", i, len(data))
		}
	}
	if _, err := register.DecodeState([]byte(`{"format":2}`)); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("another format: %v", err)
	}
}

// Keys are bounded; what is there goes on being written.
func TestTooManyKeys(t *testing.T) {
	var es []register.Entry
	for i := range register.MaxKeys {
		es = append(es, entry(t, fmt.Sprintf("drain/m%d", i), "m1", version("0.1.ns1"), version("0")))
	}
	s := state(t, es)
	after, added, err := s.Merge(entry(t, "one/more", "m1", version("0.1.ns1"), version("0")), entry(t, "drain/m7", "m1", version("0.2.ns1"), version("0.1.ns1")))
	if err == nil || len(added) != 1 || after.Len() != register.MaxKeys || after.Version("drain/m7") != version("0.2.ns1") {
		t.Errorf("%d keys, added %d, err %v", after.Len(), len(added), err)
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add([]byte(`{"format":1,"sha256":"","entries":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		es, err := register.DecodeState(data)
		if err != nil {
			return
		}
		s, _, err := register.State{}.Merge(es...)
		if err != nil {
			return
		}
		if _, err := s.MarshalBinary(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"key":"camaster","value":{},"version":"0.1.a","parent":"0","time":"2026-11-22T00:00:00Z","actor":"a","reason":"b"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := register.Decode(data, nil)
		if err != nil {
			return
		}
		if s, _, err := (register.State{}).Merge(e); err != nil || !s.Holds(&e) {
			t.Fatal("a good entry is not held")
		}
	})
}
