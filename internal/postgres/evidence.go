package postgres

import (
	"context"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
)

// saveInterval is the shortest time between two writes of the state file.
const saveInterval = time.Second

// Evidence looks at the server, and asks the source how far it has written if this one
// follows it: within twice Config.LookTimeout. What it learned of the primary it keeps
// on Disk. It may be called concurrently with everything else; what a failover loses is
// known as exactly as it is called often.
func (s *Service) Evidence(ctx context.Context) evidence.PostgreSQL {
	s.mu.Lock()
	known := s.follower
	s.mu.Unlock()
	// The question comes before the look: what has arrived by then may be all of it.
	s.ask(ctx)
	f := s.look(ctx)
	if !known && (f.recovery || f.stopped) { // the first time, it was not asked
		s.ask(ctx)
		f = s.look(ctx)
	}
	saved := s.save(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known.clamp(time.Now())
	e := evidence.PostgreSQL{Role: "unknown", MaxLag: s.cfg.MaxLag, System: f.system, Timeline: f.timeline}
	switch {
	case f.primary:
		e.Role, e.ReadOnly, e.Written = "primary", f.readOnly, f.written
	case f.recovery:
		e.Role, e.Streaming, e.LastReplay = "standby", f.streaming && !f.diverged && !f.unsure, f.lastReplay
	case f.stopped:
		e.Role, e.Written = "stopped", f.written
	}
	if f.recovery || f.stopped && f.control != nil && f.control.standby() {
		e.Received, e.Replayed = f.received, f.replayed
		if k := &s.known; k.System == f.system {
			e.PrimaryWritten, e.PrimaryHeard, e.Current = k.Written, k.Heard, k.Current
		}
	}
	switch {
	case f.err != nil:
		e.Error = oneLine(f.err.Error())
	case f.rejoinErr != nil:
		e.Error = f.rejoinErr.Error()
	case f.stopped && !f.control.clean() && !f.control.standby():
		e.Error = "it was not shut down (" + f.control.state + "): where its log ends is not known"
	case s.damaged != nil && (f.recovery || f.stopped):
		e.Error = s.damaged.Error()
	case saved != nil:
		e.Error = saved.Error()
	}
	return e
}

// Heard tells what the camaster's own member says that its server has written. A
// standby whose stream is cut then knows that there is more than it has. It proves
// nothing of what is here.
func (s *Service) Heard(system string, timeline uint32, written evidence.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known.System != "" && s.known.System != system {
		return // not of the cluster that this one is a copy of
	}
	s.dirty = s.known.hear(system, timeline, written, time.Now()) || s.dirty
}

// save writes the state file, if something changed and the last time is long enough
// ago. It waits for the disk without holding anything up but another save.
func (s *Service) save(now bool) error {
	if !s.saving.TryLock() {
		if !now {
			return nil
		}
		s.saving.Lock()
	}
	defer s.saving.Unlock()
	s.mu.Lock()
	if s.closed || !s.dirty || !now && time.Since(s.saved) < saveInterval {
		s.mu.Unlock()
		return nil
	}
	k := s.known
	s.dirty, s.saved = false, time.Now()
	s.mu.Unlock()
	err := k.write(s.cfg.Disk)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.dirty = true
	} else if k.System != "" {
		s.damaged = nil
	}
	return err
}
