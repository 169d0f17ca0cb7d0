package main

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/register"
)

// ending is what all nodes have in common after the flips.
type ending struct {
	kept      int    // writes of the camaster in each node's history
	conflicts int    // that nodes have counted since they were started
	serial    uint32 // of the zone
}

// ending waits until the nodes agree and compares what they have kept.
func (b *bench) ending(c *cluster) (ending, error) {
	var e ending
	if err := c.agree(b.ctx); err != nil {
		return e, err
	}
	histories := make(map[string][]admin.Write)
	for _, m := range c.members {
		writes, err := m.local.History(b.ctx, "camaster", 0)
		if err != nil {
			return e, err
		}
		histories[m.host] = writes
		e.kept = len(writes)
		page, err := fetch(b.ctx, fmt.Sprintf("http://%v/metrics", m.metrics))
		if err != nil {
			return e, err
		}
		n, err := counter(string(page), "coredns_puppetsrv_register_conflicts_total")
		if err != nil {
			return e, fmt.Errorf("%s: %w", m.host, err)
		}
		e.conflicts += n
	}
	if err := compare(histories, c.versions); err != nil {
		return e, err
	}
	var err error
	e.serial, err = c.serial(b)
	return e, err
}

// compare says how histories of the camaster, each the newest first, differ from
// each other or from the versions that the API gave out, the oldest first.
func compare(histories map[string][]admin.Write, versions []string) error {
	want := slices.Clone(versions)
	slices.Reverse(want)
	want = want[:min(len(want), register.Kept("camaster"))]
	var first []admin.Write
	var whose string
	for host, writes := range histories {
		var have []string
		for _, w := range writes {
			have = append(have, w.Version)
			if len(w.Conflict) > 0 {
				return fmt.Errorf("the history of %s has a conflict: %s did not know %v", host, w.Version, w.Conflict)
			}
		}
		if !slices.Equal(have, want) {
			return fmt.Errorf("the history of %s has the versions %v, and the API gave out %v", host, have, want)
		}
		if first == nil {
			first, whose = writes, host
		}
		if !reflect.DeepEqual(writes, first) {
			return fmt.Errorf("the histories of %s and %s differ:\n%+v\n%+v", whose, host, first, writes)
		}
	}
	return nil
}

// serial waits until all nodes answer one SOA serial and returns it.
func (c *cluster) serial(b *bench) (uint32, error) {
	for end := time.Now().Add(watchLimit); ; {
		var serials []uint32
		for _, m := range c.members {
			a, err := ask(b.ctx, m.dns, zoneName+".", dns.TypeSOA)
			if err != nil {
				return 0, err
			}
			serials = append(serials, serialOf(a))
		}
		if slices.Min(serials) == slices.Max(serials) && serials[0] != 0 {
			return serials[0], nil
		}
		if time.Now().After(end) {
			return 0, fmt.Errorf("the nodes have equal content, and after %v the serials %v", watchLimit, serials)
		}
		if err := b.pause(20 * time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// serialOf is 0 for what is not an SOA record.
func serialOf(m *dns.Msg) uint32 {
	if len(m.Answer) == 1 {
		if soa, ok := m.Answer[0].(*dns.SOA); ok {
			return soa.Serial
		}
	}
	return 0
}

// counter reads a counter that has a single set of labels.
func counter(page, name string) (int, error) {
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, name+"{") {
			continue
		}
		fields := strings.Fields(line)
		return strconv.Atoi(fields[len(fields)-1])
	}
	return 0, fmt.Errorf("no counter %s", name)
}
