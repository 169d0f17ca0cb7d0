package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// Service is the server of one host as one of the camaster's services. Observe,
// Evidence, Heard, Guard and Advise may be called concurrently with everything else.
type Service struct {
	cfg     Config
	account account

	looking chan struct{} // held by who looks; it guards conn
	conn    *pgx.Conn     // kept from look to look

	asking   sync.Mutex // guards upstream
	upstream upstream

	saving sync.Mutex // held by who writes the state file

	mu       sync.Mutex // guards the rest
	known    known
	dirty    bool      // known is not on disk
	saved    time.Time // the last write
	damaged  error     // the state file, until it is replaced
	closed   bool
	answer   *answer // the source's last, if it answered as a primary
	follower bool    // the last look saw a standby or a stopped server,
	system   string  // of this system

	gone origin // the timeline whose first log is no longer here; held by who looks
}

var _ role.Service = (*Service)(nil)

// NewService validates cfg, which it may get incomplete (see Config), and reads the
// state file. It does not connect, and the server need not be there.
func NewService(cfg Config) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	a, err := lookupAccount(cfg.OSUser)
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, account: a, looking: make(chan struct{}, 1)}
	s.upstream = upstream{source: cfg.Source, account: a}
	s.known, s.damaged = readKnown(cfg.Disk)
	return s, nil
}

// Close ends the connections and writes the state file. The server stays as it is. What is
// called afterwards, or is still under way, fails, and writes the state file no more: it may
// be another process' then.
func (s *Service) Close() error {
	s.looking <- struct{}{} // and for ever
	if s.conn != nil {
		closeConn(s.conn.PgConn())
		s.conn = nil
	}
	s.asking.Lock()
	defer s.asking.Unlock()
	s.upstream.close()
	err := s.save(true)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return err
}

// Name is "postgresql".
func (s *Service) Name() string { return "postgresql" }

// Observe looks at the server. It does not ask the source; Evidence does.
func (s *Service) Observe(ctx context.Context) role.Observation {
	f := s.look(ctx)
	state, detail := f.state(s.cfg.Fence)
	return role.Observation{State: state, Detail: oneLine(detail), Facts: f}
}

// state is what a server is to the role. A stopped one that its next start would make
// writable is unknown: nobody can say who starts it.
func (f *facts) state(fence string) (role.State, string) {
	switch {
	case f.primary && f.readOnly && fence == FenceReadOnly:
		return role.Closed, "primary, read-only; a session can set that off"
	case f.primary && f.readOnly:
		return role.Unknown, "primary, read-only by default_transaction_read_only, which a session can set off"
	case f.primary:
		return role.Open, fmt.Sprintf("primary, at %s", position(f.written, f.timeline))
	case f.recovery && f.promoting:
		return role.Unknown, "it is being promoted"
	case f.recovery && f.restore:
		return role.Unknown, "a restore is under way (recovery.signal), which ends with a writable server"
	case f.recovery && f.diverged:
		return role.Closed, fmt.Sprintf("standby that cannot follow: %s", f.divergence())
	case f.recovery && f.unsure:
		return role.Closed, fmt.Sprintf("in recovery, and streams timeline %d, which was made here: whether the source's is the same is not known until it says so; at %s", f.receiver.timeline, position(f.received, f.timeline))
	case f.recovery && f.receiver != nil && f.receiver.own:
		return role.Closed, fmt.Sprintf("in recovery, and streams from itself; at %s", position(f.received, f.timeline))
	case f.recovery && f.follows == "":
		return role.Closed, fmt.Sprintf("in recovery, and follows nobody; at %s", position(f.received, f.timeline))
	case f.recovery && f.streaming:
		return role.Standby, fmt.Sprintf("standby, streaming; at %s", position(f.received, f.timeline))
	case f.recovery:
		return role.Standby, fmt.Sprintf("standby, not streaming; at %s", position(f.received, f.timeline))
	case f.stopped && f.control == nil:
		if f.guarded || f.noData {
			return role.Closed, f.err.Error()
		}
		return role.Unknown, f.err.Error()
	case f.stopped && f.guarded:
		return role.Closed, "stopped (" + f.control.state + "), and guarded"
	case f.stopped:
		return role.Unknown, "stopped (" + f.control.state + "), and without standby.signal: its next start would make it writable"
	default:
		return role.Unknown, f.err.Error()
	}
}

// divergence is for people.
func (f *facts) divergence() string {
	if f.twin {
		return fmt.Sprintf("it is at %s, and the source's timeline of that number is another one: both were promoted at %s, neither knowing of the other",
			position(f.local.end().Until, f.local.end().Timeline), position(f.fork.Until, f.fork.Timeline))
	}
	return fmt.Sprintf("it is at %s, and the source left that at %s: what is behind it here is not there", position(f.local.end().Until, f.local.end().Timeline), position(f.fork.Until, f.fork.Timeline))
}

// ManualError says that people have to do something, and what.
type ManualError struct {
	Why      string
	Commands []string // for a shell on this host; may be empty
}

func (e *ManualError) Error() string {
	if len(e.Commands) == 0 {
		return e.Why
	}
	return e.Why + "; run by hand:\n" + strings.Join(e.Commands, "\n")
}

// errNotLooked: an observation of somebody else's.
var errNotLooked = errors.New("postgresql: the observation is not by this service's Observe")

// Plan says the steps. It is quick, and looks at nothing but the observation.
//
//   - To open: start, promote, wait until it writes. A promotion that was interrupted
//     may still happen; until its end was seen the service is unknown, and not standby.
//   - To closed: stop and guard, or the read-only fence. A server in recovery writes
//     nothing, so it is left running as it is: stopping a standby would cost its stream.
//   - To standby: see planStandby.
//
// An error may be a *ManualError.
func (s *Service) Plan(o role.Observation, to role.State) ([]role.Step, error) {
	f, ok := o.Facts.(*facts)
	if !ok {
		return nil, errNotLooked
	}
	switch to {
	case role.Open:
		return s.planOpen(f)
	case role.Closed:
		return s.planClosed(f)
	case role.Standby:
		return s.planStandby(f)
	}
	return nil, fmt.Errorf("postgresql: nothing becomes %q: it has to be open, closed or standby", to)
}
