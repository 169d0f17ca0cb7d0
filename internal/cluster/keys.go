package cluster

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
)

// ErrNotEncrypted is returned where there is no key ring.
var ErrNotEncrypted = errors.New("gossip is not encrypted here: there are no keys; write `gossip ... key FILE`")

// Operations of calls on key rings. Each is idempotent.
const (
	opListKeys  = "list-keys"
	opAddKey    = "add-key"    // the argument is the key
	opUseKey    = "use-key"    // its id
	opRemoveKey = "remove-key" // its id
)

// NodeKeys is the key ring of one member.
type NodeKeys struct {
	Name string
	Keys []gossip.Key
	Err  error // why it is not known
}

// Keys returns the key rings of all known members, by name.
func (c *Cluster) Keys(ctx context.Context) ([]NodeKeys, error) {
	own, err := c.operateRing(opListKeys, nil)
	if err != nil {
		return nil, err
	}
	rings := []NodeKeys{{Name: c.cfg.Name, Keys: own}}
	for a := range c.call(opListKeys, nil) {
		n := NodeKeys{Name: a.Name, Err: a.Err}
		if n.Err == nil {
			n.Err = json.Unmarshal(a.body, &n.Keys)
		}
		rings = append(rings, n)
	}
	slices.SortFunc(rings, func(a, b NodeKeys) int { return strings.Compare(a.Name, b.Name) })
	return rings, nil
}

// AddKey makes a key and adds it to the ring of every living member, this one first.
// Use it when all have it.
func (c *Cluster) AddKey(ctx context.Context) (id string, answers []Answer, err error) {
	key, err := gossip.Generate()
	if err != nil {
		return "", nil, err
	}
	if c.Encrypted() {
		id, err = c.cfg.Gossip.KeyRing.Add(key)
	} else {
		err = ErrNotEncrypted
	}
	if err != nil {
		return "", nil, err
	}
	return id, c.collect(c.call(opAddKey, key)), nil
}

// UseKey makes a key the one that encrypts, everywhere. It is refused unless every
// known member has the key: one without it would be lost.
func (c *Cluster) UseKey(ctx context.Context, id string) ([]Answer, error) {
	err := c.everyRing(ctx, func(ring []gossip.Key) error {
		if !slices.ContainsFunc(ring, func(k gossip.Key) bool { return k.ID == id }) {
			return fmt.Errorf("it does not have key %s", id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := c.operateRing(opUseKey, []byte(id)); err != nil {
		return nil, err
	}
	return c.collect(c.call(opUseKey, []byte(id))), nil
}

// RemoveKey takes a key off every ring. It is refused while any known member may still
// encrypt with it: what that one says, nobody could read.
func (c *Cluster) RemoveKey(ctx context.Context, id string) ([]Answer, error) {
	err := c.everyRing(ctx, func(ring []gossip.Key) error {
		if slices.ContainsFunc(ring, func(k gossip.Key) bool { return k.ID == id && k.Primary }) {
			return fmt.Errorf("it encrypts with key %s", id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := c.operateRing(opRemoveKey, []byte(id)); err != nil {
		return nil, err
	}
	return c.collect(c.call(opRemoveKey, []byte(id))), nil
}

// everyRing says which known member's ring is not as check wants it, or not known.
func (c *Cluster) everyRing(ctx context.Context, check func([]gossip.Key) error) error {
	rings, err := c.Keys(ctx)
	if err != nil {
		return err
	}
	proven := c.reports.proven()
	var bad []string
	for _, r := range rings {
		if r.Name != c.cfg.Name && proven[r.Name] == "" && !c.known.isNode(r.Name) {
			continue // who has the gossip key alone has no say in its exchange
		}
		if r.Err == nil {
			r.Err = check(r.Keys)
		}
		if r.Err != nil {
			bad = append(bad, r.Name+": "+r.Err.Error())
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("a member would be lost to the cluster (%s): bring it back, or take its name out of the configuration", strings.Join(bad, "; "))
}

func (c *Cluster) collect(answers <-chan Answer) []Answer {
	var all []Answer
	for a := range answers {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b Answer) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// operateRing does op on the own ring and returns what is then in it.
func (c *Cluster) operateRing(op string, arg []byte) ([]gossip.Key, error) {
	if !c.Encrypted() {
		return nil, ErrNotEncrypted
	}
	ring := c.cfg.Gossip.KeyRing
	var err error
	switch op {
	case opListKeys:
	case opAddKey:
		_, err = ring.Add(arg)
	case opUseKey:
		err = ring.Use(string(arg))
	case opRemoveKey:
		err = ring.Remove(string(arg))
	}
	return ring.Keys(), err
}

// about is what may be told of an argument: not a key.
func about(op string, arg []byte) string {
	if op == opAddKey {
		return "of " + fmt.Sprint(base64.StdEncoding.DecodedLen(len(arg))) + " bytes"
	}
	return string(arg)
}
