package cluster

import (
	"fmt"
	"slices"

	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// learned tells of entries that are new here.
func (c *Cluster) learned(before register.State, added []register.Entry) {
	state := c.Registers()
	keys := make(map[string]bool)
	for i := range added {
		keys[added[i].Key] = true
	}
	for key := range keys {
		history := state.History(key)
		for j := range history {
			w := &history[j]
			unknown := slices.DeleteFunc(register.Unknown(history, w), func(u register.Entry) bool {
				return before.Holds(w) && before.Holds(&u) // told before
			})
			if len(unknown) > 0 && c.cfg.Conflict != nil {
				c.cfg.Conflict(*w, unknown)
			}
		}
	}
	c.cfg.Changed()
}

// inboxSize bounds the acknowledgements that wait for the disk.
const inboxSize = 1024

// received is a message with entries that is to be acknowledged once they are
// durable. Without an id nobody waits.
type received struct {
	from string
	id   uint64
}

// takeEntries takes register entries of others: whoever brings them, whoever sealed
// them counts. They hold at once, and are acknowledged when they are on disk.
func (c *Cluster) takeEntries(m *entriesMessage) {
	refused := false
	refuse := func(err error) {
		refused = true
		c.log.Refused("entry", "Registers: what %.100q sends is refused: %s", m.From, err)
		if m.ID != 0 {
			c.replyTo(m.From, m.ID, nil, fmt.Errorf("refused: %w", err))
		}
	}
	entries, certificates, err := m.decode()
	if err != nil {
		refuse(err)
		m.ID = 0 // that was the answer
	}
	if len(entries) == 0 {
		return
	}
	state := c.Registers()
	var fresh []register.Entry
	var ders [][]byte
	for _, e := range entries {
		if state.Holds(&e) {
			continue
		}
		fingerprint, signature, _ := splitSeal(e.Seal())
		if err := c.judgeSeal(trust.Sealed{Payload: e.Payload(), Certificate: certificates[fingerprint], Signature: signature}); err != nil {
			refuse(fmt.Errorf("%s %s: %w", e.Key, e.Version, err))
			m.ID = 0 // that was the answer
			continue
		}
		fresh = append(fresh, e)
		ders = append(ders, certificates[fingerprint])
	}
	before, added, err := c.registers.learn(fresh, ders)
	if err != nil { // the others hold all the same
		refuse(err)
		m.ID = 0
	}
	if len(added) > 0 {
		c.learned(before, added)
	}
	if !refused { // else it is not known what the other one holds
		c.settle(m.From)
	}
	// A write that does not hold here is not acknowledged: its writer has not learned yet
	// what stands.
	for i := range entries {
		if e := &entries[i]; m.ID != 0 && c.Registers().Version(e.Key).Compare(e.Version) > 0 {
			c.replyTo(m.From, m.ID, nil, fmt.Errorf("version %s stands here, which is newer", c.Registers().Version(e.Key)))
			m.ID = 0 // that was the answer
		}
	}
	select {
	case c.inbox <- received{m.From, m.ID}:
	default: // the disk hangs: no acknowledgement
	}
}

// runInbox makes durable what was learned, as much as there is at a time, and then
// acknowledges it.
func (c *Cluster) runInbox() {
	for {
		var batch []received
		select {
		case <-c.ctx.Done():
			return
		case r := <-c.inbox:
			batch = append(batch, r)
		}
	more:
		for {
			select {
			case r := <-c.inbox:
				batch = append(batch, r)
			default:
				break more
			}
		}
		err := c.registers.save()
		if err != nil {
			c.log.Warningf("disk", "Registers: what others have written holds here, but is not on disk: %s", err)
			err = fmt.Errorf("it holds, but is not on its disk: %w", err)
		}
		for _, r := range batch {
			if r.id != 0 {
				c.replyTo(r.from, r.id, nil, err)
			}
		}
	}
}
