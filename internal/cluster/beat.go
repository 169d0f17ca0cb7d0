package cluster

import (
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// sign is a sign of life: the report numbered Seq still holds.
type sign struct {
	Observer string `json:"observer"`
	Boot     uint64 `json:"boot"`
	Seq      uint64 `json:"seq"`
	Beat     uint64 `json:"beat"` // grows
	// Time keeps a sign from being given again after the observer's end.
	Time time.Time `json:"time"`
}

// fresh is how long a report holds without a sign of life.
func (c *Cluster) fresh() time.Duration { return 4 * c.cfg.Beat }

func (c *Cluster) sendBeat() {
	rs := c.reports
	rs.mu.Lock()
	if rs.own.Seq == 0 {
		rs.own.Seq = 1
		select {
		case rs.due <- struct{}{}:
		default:
		}
	}
	rs.beat++
	s := sign{c.cfg.Name, rs.own.Boot, rs.own.Seq, rs.beat, time.Now()}
	rs.mu.Unlock()
	if s.Seq == 0 || c.pool == nil || c.policy.Load().Identity == nil {
		return
	}
	sealed, err := c.say(kindBeat, s)
	if err != nil {
		c.log.Warningf("report", "Cluster: cannot give a sign of life: %s", err)
		return
	}
	c.post(c.others(RoleNode), &message{Beat: sealed})
}

// takeBeat takes a sign of life. One of a report that is not here asks for it.
func (c *Cluster) takeBeat(s *trust.Sealed) {
	var b sign
	if _, err := c.open(kindBeat, s, &b, func(who string) error { return c.speaksFor(who, b.Observer) }); err != nil {
		c.log.Refused("report", "Cluster: a sign of life in the name of %.100q is refused: %s", b.Observer, err)
		return
	}
	if b.Observer == c.cfg.Name {
		c.outlive(b.Boot)
		return
	}
	if err := timely(b.Time); err != nil {
		c.log.Refused("report", "Cluster: a sign of life of %s is refused: %s", b.Observer, err)
		return
	}
	rs := c.reports
	rs.mu.Lock()
	h := rs.held[b.Observer]
	missing := h == nil || newer(b.Boot, b.Seq, h.report)
	again := false
	if h != nil && !missing && b.Boot == h.report.Boot && b.Seq == h.report.Seq && b.Beat > h.beat {
		h.heard, h.beat = time.Now(), b.Beat
		again, h.stale = h.stale, false
	}
	rs.mu.Unlock()
	if missing {
		c.post([]gossip.Member{{Name: b.Observer}}, &message{Summary: c.summary()})
	}
	if again {
		c.cfg.Changed()
	}
}

// maxOutlive is how far a clock may have gone back; ten years in microseconds.
const maxOutlive = 10 * 365 * 24 * 3600 * 1_000_000

// outlive makes this member's reports newer than what the others have of it from
// before: its disk or its clock may have gone back.
func (c *Cluster) outlive(boot uint64) {
	rs := c.reports
	rs.mu.Lock()
	defer rs.mu.Unlock()
	// What is far in the future was never this member's: boots are microseconds.
	if boot <= rs.own.Boot || boot > rs.own.Boot+maxOutlive {
		return
	}
	rs.own.Boot, rs.said = boot+1, nil
	c.known.setBoot(boot + 1)
	select {
	case rs.due <- struct{}{}:
	default:
	}
}

// age reports whether time alone has made a report stale.
func (rs *reports) age(now time.Time, fresh time.Duration) (changed bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, h := range rs.held {
		if stale := now.Sub(h.heard) > fresh; stale != h.stale {
			h.stale = stale
			changed = true
		}
	}
	return changed
}
