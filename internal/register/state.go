// Package register is a small replicated map of registers: values that an
// operator writes rarely, that every node holds, and that must come to the same
// everywhere whatever gets lost, late, twice or out of order. It is pure: no
// clocks, no I/O, no goroutines, no cryptography.
//
// A register is the newest few entries ever written to its key; its value is the
// newest of them. Merge takes the union and keeps the newest again, which is
// idempotent, commutative and associative (a join semilattice, as in Shapiro et al.,
// "Conflict-free Replicated Data Types", 2011). An entry with what it says is never
// changed, and an empty state never wins, because it adds nothing.
package register

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Limits on a state.
const (
	// MaxKeys is how many keys there may be. A key is never removed.
	MaxKeys = 16384
	// MaxHistory is the most that Kept returns.
	MaxHistory = 32
)

// DrainPrefix begins the keys of drains, of which there is one a master.
const DrainPrefix = "drain/"

// Kept is how many entries are kept of a key, the current one among them. It is
// part of the merge: every release has to agree on it for ever.
func Kept(key string) int {
	if strings.HasPrefix(key, DrainPrefix) {
		return 4
	}
	return MaxHistory
}

// State is the registers at one time. It is immutable: Merge returns another one.
// The zero value has never been written to. Methods are safe for concurrent use.
type State struct {
	keys map[string][]Entry // newest first, at least one, at most Kept
}

// Get returns the current entry of a key.
func (s State) Get(key string) (Entry, bool) {
	if es := s.keys[key]; len(es) > 0 {
		return es[0], true
	}
	return Entry{}, false
}

// Version returns the version of a key's current entry.
func (s State) Version(key string) Version {
	e, _ := s.Get(key)
	return e.Version
}

// History returns the entries of a key, the newest first. It must not be changed.
func (s State) History(key string) []Entry { return s.keys[key] }

// Keys returns the keys in order.
func (s State) Keys() []string { return slices.Sorted(maps.Keys(s.keys)) }

// Len is the number of keys.
func (s State) Len() int { return len(s.keys) }

// All yields every entry: by key, the newest first.
func (s State) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, k := range s.Keys() {
			for _, e := range s.keys[k] {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// Merge returns s with entries, and which of them were new to it and are kept. The
// only error is a key too many; everything else is merged all the same.
func (s State) Merge(entries ...Entry) (merged State, added []Entry, err error) {
	changed := make(map[string][]Entry)
	fresh := 0 // keys
	for _, e := range entries {
		es, ok := changed[e.Key]
		if !ok {
			es = s.keys[e.Key]
		}
		if len(es) == 0 && len(s.keys)+fresh >= MaxKeys {
			err = fmt.Errorf("register %s: there are %d keys already", e.Key, MaxKeys)
			continue
		}
		i, held := slices.BinarySearchFunc(es, e, func(a, b Entry) int { return -a.Compare(&b) })
		if held || i >= Kept(e.Key) {
			continue
		}
		if len(es) == 0 {
			fresh++
		}
		es = slices.Insert(slices.Clone(es), i, e)
		changed[e.Key] = es[:min(len(es), Kept(e.Key))]
		added = append(added, e)
	}
	if len(changed) == 0 {
		return s, nil, err
	}
	merged.keys = maps.Clone(s.keys)
	if merged.keys == nil {
		merged.keys = make(map[string][]Entry)
	}
	maps.Copy(merged.keys, changed)
	added = slices.DeleteFunc(added, func(e Entry) bool { return !merged.Holds(&e) })
	return merged, added, err
}

// Reseal returns s with the seal of e in place of the one it holds for the same
// entry, which it must hold.
func (s State) Reseal(e Entry) State {
	es := slices.Clone(s.keys[e.Key])
	for i := range es {
		if es[i].Compare(&e) == 0 {
			es[i] = e
		}
	}
	keys := maps.Clone(s.keys)
	keys[e.Key] = es
	return State{keys}
}

// Holds reports whether s has e.
func (s State) Holds(e *Entry) bool {
	return slices.ContainsFunc(s.keys[e.Key], func(o Entry) bool { return o.Compare(e) == 0 })
}

// Contains reports whether s has everything of o that it could keep: merging o
// would change nothing.
func (s State) Contains(o State) bool {
	for e := range o.All() {
		es := s.keys[e.Key]
		if n := Kept(e.Key); len(es) == n && e.Compare(&es[n-1]) < 0 {
			continue
		}
		if !s.Holds(&e) {
			return false
		}
	}
	return true
}

// Unknown returns the older entries of e's key that e's writer did not know: those
// that it won against without meaning to. The history must be a key's, the newest
// first, as State.History returns it. An entry that was forced won over what it did
// not know on purpose; it is a conflict all the same, because it was not seen.
func Unknown(history []Entry, e *Entry) []Entry {
	var unknown []Entry
	for i := range history {
		o := &history[i]
		if o.Compare(e) < 0 && o.Version.Compare(e.Parent) > 0 {
			unknown = append(unknown, *o)
		}
	}
	return unknown
}
