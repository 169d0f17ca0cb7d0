package store_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/puppetsrv/puppetsrv/internal/store"
)

func TestNextSerialAmongPeers(t *testing.T) {
	type serials = []store.Serial
	now := uint32(t0.Unix())
	tests := []struct {
		name  string
		past  store.Serial
		known bool
		hash  string
		peers serials
		want  uint32
	}{
		{"equal content, older there: unchanged", store.Serial{Serial: 7, Hash: "a"}, true, "a", serials{{Serial: 5, Hash: "a"}}, 7},
		{"equal content, newer there: theirs", store.Serial{Serial: 7, Hash: "a"}, true, "a", serials{{Serial: 9, Hash: "a"}, {Serial: 8, Hash: "a"}}, 9},
		{"other content there says nothing", store.Serial{Serial: 7, Hash: "a"}, true, "a", serials{{Serial: 9, Hash: "b"}}, 7},
		{"a change to what a peer has: its serial", store.Serial{Serial: 7, Hash: "a"}, true, "b", serials{{Serial: 9, Hash: "b"}}, 9},
		{"but not one that is no newer", store.Serial{Serial: 9, Hash: "a"}, true, "b", serials{{Serial: 9, Hash: "b"}}, 10},
		{"a change to what nobody has: newer than all", store.Serial{Serial: 7, Hash: "a"}, true, "c", serials{{Serial: 9, Hash: "b"}, {Serial: 8, Hash: "a"}}, 10},
		{"two contents under one serial: one moves on", store.Serial{Serial: 7, Hash: "a"}, true, "a", serials{{Serial: 7, Hash: "b"}}, 8},
		{"and the other stays", store.Serial{Serial: 7, Hash: "b"}, true, "b", serials{{Serial: 7, Hash: "a"}}, 7},
		{"without a past: theirs", store.Serial{}, false, "a", serials{{Serial: 9, Hash: "a"}}, 9},
		{"without a past and with other content: the time", store.Serial{}, false, "a", serials{{Serial: 9, Hash: "b"}}, now},
		{"or newer than all", store.Serial{}, false, "a", serials{{Serial: now + 3, Hash: "b"}}, now + 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := store.NextSerial(tt.past, tt.known, tt.hash, 0, t0, tt.peers); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// Nodes change at any time and hear of each other late. On each the serial never
// goes back and moves with every change; and when all have heard, equal content has
// equal serials and different content different ones.
func TestSerialsOfPeersConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type node struct {
			serials *store.Serials
			hash    string
			serial  uint32
			peers   []store.Serial // as last heard
		}
		nodes := make([]*node, rapid.IntRange(2, 4).Draw(t, "nodes"))
		for i := range nodes {
			nodes[i] = &node{serials: store.OpenSerials(""), hash: "a", peers: make([]store.Serial, len(nodes))}
		}
		build := func(n *node, hash string) {
			got := n.serials.Next("example.net.", hash, 0, t0, n.peers...)
			switch {
			case n.serial == 0:
			case hash != n.hash && !store.Newer(got, n.serial):
				t.Fatalf("content changed, and the serial went from %d to %d", n.serial, got)
			case got != n.serial && !store.Newer(got, n.serial):
				t.Fatalf("the serial went back from %d to %d", n.serial, got)
			}
			n.hash, n.serial = hash, got
		}
		hear := func(i, j int) { nodes[i].peers[j] = store.Serial{Serial: nodes[j].serial, Hash: nodes[j].hash} }
		for _, n := range nodes {
			build(n, "a")
		}
		for k := range rapid.IntRange(0, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, len(nodes)-1).Draw(t, fmt.Sprint("node ", k))
			if j := rapid.IntRange(0, len(nodes)-1).Draw(t, fmt.Sprint("hears ", k)); j != i {
				hear(i, j)
			}
			build(nodes[i], rapid.SampledFrom([]string{nodes[i].hash, "a", "b", "c"}).Draw(t, fmt.Sprint("content ", k)))
		}
		settled := false
		for range 4 * len(nodes) {
			settled = true
			for i, n := range nodes {
				for j := range nodes {
					if i != j {
						hear(i, j)
					}
				}
				before := n.serial
				build(n, n.hash)
				settled = settled && n.serial == before
			}
			if settled {
				break
			}
		}
		if !settled {
			t.Fatal("the serials never come to rest")
		}
		for _, a := range nodes {
			for _, b := range nodes {
				if (a.hash == b.hash) != (a.serial == b.serial) {
					t.Fatalf("contents %s and %s have serials %d and %d", a.hash, b.hash, a.serial, b.serial)
				}
			}
		}
	})
}
