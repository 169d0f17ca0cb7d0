package node

import (
	"fmt"
	"slices"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// shortage is what the target of a handover does not have of the old camaster's
// database, as both said last.
type shortage struct {
	why   string // what is missing, or where not known why nobody knows; "" if nothing is
	bytes uint64 // of log that are known to be missing
	known bool   // nothing else is missing
	final bool   // nobody who is waited for changes that any more
}

// shortage compares how far the log of the old camaster's PostgreSQL goes with what the
// target has received. Nobody writes to the old one any more, but only one that was shut
// down as a primary says by itself where its log ends: one that was started again
// meanwhile, in recovery, has what it finds in its own log, and one that was killed has
// to be started to find that.
func (m *move) shortage() shortage {
	to, from := m.to.postgreSQL(), m.from.postgreSQL()
	switch {
	case from == nil:
		return shortage{why: fmt.Sprintf("nothing is heard of PostgreSQL on %s", m.from.host)}
	case from.Role == "primary" && !from.ReadOnly:
		return shortage{why: fmt.Sprintf("PostgreSQL on %s is not stopped yet: it is a primary%s", m.from.host, after(", ", from.Error))}
	case from.Role != "primary" && from.Role != "stopped" && from.Role != "standby":
		return shortage{why: fmt.Sprintf("PostgreSQL on %s is in an unknown state%s", m.from.host, after(": ", from.Error))}
	}
	var s shortage
	end := logEnd(from)
	if end > to.Received {
		s.bytes = uint64(end - to.Received)
	}
	switch {
	case from.Role == "stopped" && from.Written == 0:
		// What it says that it has received is then the least of what is there.
		s.final = true
		s.why = fmt.Sprintf("PostgreSQL on %s is stopped, and where its log ends is not known%s; once it is started there, in recovery as it is, it says so", m.from.host, after(": ", from.Error))
	case end == 0:
		s.why = fmt.Sprintf("how far PostgreSQL on %s has written is not known yet", m.from.host)
	case s.bytes > 0:
		s.known = true
		// One that is stopped sends nothing, and the target said after that that it is cut off.
		s.final = from.Role == "stopped" && !to.Streaming && m.to.member.came.After(m.from.member.came)
		s.why = fmt.Sprintf("%s has yet to receive %d bytes of what PostgreSQL on %s has", m.to.host, s.bytes, m.from.host)
	default:
		s.known = true
	}
	return s
}

// logEnd is how far the log of a PostgreSQL goes on its own host, 0 if that is not known:
// to the end that a primary has written, and otherwise as far as it has come at least.
func logEnd(pg *evidence.PostgreSQL) evidence.LSN {
	if pg.Role == "primary" {
		return pg.Written
	}
	return max(pg.Written, pg.Received, pg.Replayed)
}

// received wants that the target has everything that the old camaster has written.
func (m *move) received(c *checklist) {
	const name = "replication"
	s := m.shortage()
	if s.why == "" {
		c.met(name, "%s has received everything", m.to.host)
		return
	}
	if !s.known {
		s.why = fmt.Sprintf("it is not known whether %s has everything: %s", m.to.host, s.why)
	}
	c.unmet(name, accept, "%s", s.why)
	if !s.final {
		c.waits()
	}
}

// handoverLoss is what is lost if the handover ends now: nothing, once its conditions
// are met.
func (m *move) handoverLoss() admin.Loss {
	var l admin.Loss
	to, from := m.to.postgreSQL(), m.from.postgreSQL()
	if r := m.from.role(); r != nil && r.Unclean != "" {
		l.Detail = fmt.Sprintf("not known: what was closed on %s may not all be on %s: %s", m.from.host, m.to.host, r.Unclean)
		return m.since(l)
	}
	if to == nil && from != nil || m.to.member == nil || m.from.member == nil {
		l.Detail = fmt.Sprintf("not known: the members on %s and %s do not both say what they have", m.from.host, m.to.host)
		return l
	}
	if to != nil {
		s := m.shortage()
		l.Bytes, l.Known = s.bytes, s.known
		switch {
		case s.known && s.bytes > 0:
			return m.since(admin.Loss{Known: true, Bytes: s.bytes, Detail: missingBytes(s.bytes)})
		case !s.known && s.final:
			l.Detail = "not known: " + s.why
			return m.since(l)
		case !s.known:
			l.Detail = "not known yet: " + s.why
			return l
		}
	}
	l.Known, l.Detail = true, fmt.Sprintf("nothing: %s has everything that %s wrote", m.to.host, m.from.host)
	var ca checklist
	m.inStep(&ca)
	if i := slices.IndexFunc(ca, func(c admin.Condition) bool { return !c.OK }); i >= 0 {
		l.Detail = "nothing of the database; of the CA what is missing: " + ca[i].Detail
	}
	return l
}

func missingBytes(n uint64) string {
	return fmt.Sprintf("%d bytes of log are known to be missing", n)
}

// since bounds a loss by the time at which the target last had everything.
func (m *move) since(l admin.Loss) admin.Loss {
	pg := m.to.postgreSQL()
	if pg == nil || pg.Current.IsZero() {
		if l.Known {
			l.Known = false
			l.Detail += "; since when is not"
		}
		return l
	}
	l.Since = pg.Current.UTC()
	// Two clocks: the longer of what both of them say.
	old := max(m.now.Sub(pg.Current), m.to.member.said.Sub(pg.Current)+m.now.Sub(m.to.member.came), 0)
	l.Seconds = old.Round(time.Millisecond).Seconds()
	l.Detail += fmt.Sprintf("; at most what was committed in the last %.1f s", l.Seconds)
	return l
}
