package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// stateFile is where a known is kept.
const stateFile = "postgresql.json"

// known is what a standby knows of its primary: the bound of what a failover loses.
//
// The primary is asked "how far have you flushed your log?" and says X. Whatever was
// committed on it before the question was asked (acknowledged to a client, with
// synchronous_commit on, as it is by default) is in the log before X. So as soon as
// this server has received its log up to X, on the same timeline, everything that was
// committed before the question is here, and Current is the time of the question. That
// time is of this host's clock alone: neither the primary's clock nor the way of the
// answer matters, and an idle primary answers like a busy one.
//
// Where the source is not set or cannot be asked, but streams, what its messages say is
// used instead: they have the end of its log (latest_end_lsn) and when they were sent
// (latest_end_time), by the primary's clock. Then Current is as good as the two clocks
// are the same, and it stays where it is while the primary has nothing to write: its
// keepalive messages say what was sent, not what there is, and prove nothing.
type known struct {
	System   string       `json:"system,omitempty"`
	Timeline uint32       `json:"timeline,omitempty"` // of the primary
	Written  evidence.LSN `json:"written,omitempty"`  // the farthest end of its log that was heard of
	Heard    time.Time    `json:"heard,omitzero"`     // when that was
	Current  time.Time    `json:"current,omitzero"`
	// Promoting is when a promotion was asked for whose end was not seen. The server may
	// become writable at any moment.
	Promoting time.Time `json:"promoting,omitzero"`

	// Origins are those of timelines that this server has written or streamed, the newest last.
	Origins []*origin `json:"origins,omitempty"`

	marks []mark
}

// mark says that everything committed before At is in the log before LSN.
type mark struct {
	at       time.Time
	timeline uint32
	lsn      evidence.LSN
}

// streamMargin is taken off the time of a streamed message: the walsender looks where
// the log ends, reads it, and only then at the clock.
const streamMargin = time.Second

// maxMarks bounds the marks that wait to be reached. When there are more, every other
// one goes: Current gets coarser, and stays true.
const maxMarks = 128

// hear takes in that the primary of a timeline has written up to lsn. Of an older
// timeline than heard of it is nothing: that primary was replaced.
func (k *known) hear(system string, timeline uint32, lsn evidence.LSN, now time.Time) (changed bool) {
	if system == "" || timeline == 0 || lsn == 0 {
		return false
	}
	switch {
	case system != k.System || timeline > k.Timeline:
		// What an old timeline had behind the fork is no more.
		current := k.Current
		if system != k.System {
			current = time.Time{}
		}
		*k = known{System: system, Timeline: timeline, Current: current, Promoting: k.Promoting, Origins: k.Origins}
	case timeline < k.Timeline || lsn < k.Written:
		return false
	}
	k.Written, k.Heard = lsn, now.Round(0)
	return true
}

// note adds a mark.
func (k *known) note(m mark) {
	if n := len(k.marks); n > 0 && k.marks[n-1].at.Round(0).After(m.at.Round(0)) {
		k.marks = nil // a clock was set back: times before it mean nothing now
	}
	k.marks = append(k.marks, m)
	if len(k.marks) > maxMarks {
		kept := k.marks[:0]
		for i, m := range k.marks {
			if i%2 == 0 || i == maxMarks {
				kept = append(kept, m)
			}
		}
		k.marks = kept
	}
}

// reach takes in what was received of the log of a timeline.
func (k *known) reach(timeline uint32, received evidence.LSN) (changed bool) {
	kept := k.marks[:0]
	for _, m := range k.marks {
		switch {
		case m.timeline < timeline: // of a primary that was replaced
		case m.timeline == timeline && m.lsn <= received:
			k.Current, changed = m.at.Round(0), true
		default:
			kept = append(kept, m)
		}
	}
	k.marks = kept
	return changed
}

// clamp forgets times that are yet to come: they are from before a clock was set back,
// and would promise too much.
func (k *known) clamp(now time.Time) {
	now = now.Round(0)
	if k.Current.After(now) {
		k.Current = time.Time{}
	}
	if k.Heard.After(now) {
		k.Heard = now
	}
}

// readKnown reads the state file. A damaged one is an error, and its content nothing:
// then the lag is not known until the primary is heard again.
func readKnown(d Disk) (known, error) {
	data, err := d.Read(stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return known{}, nil
	}
	if err != nil {
		return known{}, fmt.Errorf("reading the state of postgresql: %w", err)
	}
	var k known
	if err := json.Unmarshal(data, &k); err != nil {
		return known{}, fmt.Errorf("reading the state of postgresql: %s is damaged: %w", stateFile, err)
	}
	return k, nil
}

func (k *known) write(d Disk) error {
	data, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := d.Write(stateFile, append(data, '\n')); err != nil {
		return fmt.Errorf("writing the state of postgresql: %w", err)
	}
	return nil
}
