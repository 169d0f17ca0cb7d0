package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// Cluster is the membership.
func (p Page) Cluster(c admin.Cluster) string {
	var rows [][]cell
	for _, m := range c.Members {
		state := cell{clean(m.State), green}
		switch m.State {
		case "alive":
		case "left":
			state.style = dim
		default:
			state.style = red
		}
		name := clean(m.Name)
		if m.Self {
			name += " (this one)"
		}
		rows = append(rows, []cell{
			text(name), text(m.Role), state, text(p.ago(m.Since)), text(or(m.Datacenter)), text(or(m.Address)),
		})
	}
	var b strings.Builder
	b.WriteString(p.table("", []string{"MEMBER", "ROLE", "STATE", "SINCE", "IN", "ADDRESS"}, rows))
	if c.Encrypted {
		b.WriteString("gossip is encrypted\n")
	} else {
		b.WriteString(p.paint("gossip is not encrypted", amber) + "\n")
	}
	var refused []string
	for _, reason := range slices.Sorted(maps.Keys(c.Refused)) {
		if n := c.Refused[reason]; n > 0 {
			refused = append(refused, fmt.Sprintf("%d %s", n, clean(reason)))
		}
	}
	if len(refused) > 0 {
		b.WriteString(p.wrapPainted("", "refused", amber, " since the start: "+strings.Join(refused, ", ")))
	}
	return b.String()
}

// Keys is each gossip key with the nodes that have it.
func (p Page) Keys(k admin.Keys) string {
	var (
		ids      []string
		known    []string // the nodes whose ring is known
		holds    = make(map[string][]string)
		encrypts = make(map[string][]string)
		failed   strings.Builder
	)
	for _, n := range k.Nodes {
		if n.Error != "" {
			failed.WriteString(p.wrap(clean(n.Node)+": ", clean(n.Error)))
			continue
		}
		known = append(known, n.Node)
		for _, key := range n.Keys {
			if !slices.Contains(ids, key.ID) {
				ids = append(ids, key.ID)
			}
			holds[key.ID] = append(holds[key.ID], n.Node)
			if key.Primary {
				encrypts[key.ID] = append(encrypts[key.ID], n.Node)
			}
		}
	}
	if len(ids) == 0 {
		return "no gossip keys\n" + failed.String()
	}
	// which names the nodes, or those that lack, or says all.
	which := func(nodes []string) cell {
		switch {
		case len(nodes) == 0:
			return text("-")
		case len(nodes) == len(known):
			return text(fmt.Sprintf("all %s", count(len(known), "node")))
		}
		return cell{clean(strings.Join(nodes, ", ")), amber}
	}
	slices.Sort(ids)
	var rows [][]cell
	for _, id := range ids {
		rows = append(rows, []cell{text(id), which(encrypts[id]), which(holds[id])})
	}
	return p.table("", []string{"KEY", "ENCRYPTS ON", "KNOWN TO"}, rows) + failed.String()
}

// KeyChange is what became of a change to the key rings: "added key 1a2b3c4d".
func (p Page) KeyChange(done string, r admin.KeyResult) string {
	return fmt.Sprintf("%s key %s\n", done, clean(r.ID)) + p.acks(r.Acked, r.Of, r.Nodes)
}

// Event is one line of what happens.
func (p Page) Event(e admin.Event) string {
	return fmt.Sprintf("%s  %-8s  %s  %s (%s)\n",
		e.Time.In(p.Now.Location()).Format("2006-01-02 15:04:05"), clean(e.Kind), p.paint(host(e.Subject), bold), clean(e.Text), clean(e.Node))
}

// Zones is datacenters' domains as zone file text, with a comment on top of each.
func (p Page) Zones(zones []admin.Zone) string {
	var b strings.Builder
	for i, z := range zones {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.paint(fmt.Sprintf("; %s: %s in zone %s, serial %d", clean(z.Datacenter), host(z.Domain), host(z.Origin), z.Serial), dim) + "\n")
		widest := 0
		for _, set := range z.RRsets {
			widest = max(widest, len(set.Name))
		}
		for _, set := range z.RRsets {
			for _, record := range set.Records {
				fmt.Fprintf(&b, "%-*s %d IN %-5s %s\n", widest, clean(set.Name), set.TTL, clean(set.Type), clean(record))
			}
		}
	}
	return b.String()
}
