package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// planOpen is Plan's for open.
func (s *Service) planOpen(f *facts) ([]role.Step, error) {
	if f.rejoinErr != nil {
		return nil, fmt.Errorf("postgresql must not be opened: %w", f.rejoinErr)
	}
	if f.rejoin.spoils(s.cfg.Data) {
		return nil, errors.New("postgresql must not be opened: pg_rewind was cut off, and its data is neither the old nor the new: `puppetsrvctl rejoin` this host")
	}
	if f.restore {
		return nil, fmt.Errorf("postgresql must not be opened: %s is in %s, so a restore is under way: end or remove that first", recoverySignal, s.cfg.Data)
	}
	var steps []role.Step
	switch {
	case f.primary && !f.readOnly:
	case f.primary:
		steps = []role.Step{s.stepWritable()}
	case f.recovery:
		steps = []role.Step{s.stepPromote(), s.stepWritable()}
	case f.stopped && f.err != nil:
		return nil, fmt.Errorf("postgresql cannot be opened: %w", f.err)
	case f.stopped, f.starting:
		steps = []role.Step{s.stepStart("so that it can be opened"), s.stepPromote(), s.stepWritable()}
	default:
		return nil, fmt.Errorf("postgresql cannot be opened: %w", f.err)
	}
	if s.cfg.GuardOpen && (len(steps) > 0 || !f.guarded) {
		steps = append(steps, s.stepGuard())
	}
	return steps, nil
}

// stepStart starts the server and waits until it can be connected to.
func (s *Service) stepStart(why string) role.Step {
	c, own := s.startCommand()
	return role.Step{
		Name: "start", Detail: c.String() + ", " + why, Timeout: s.cfg.StartTimeout + 10*time.Second,
		Run: func(ctx context.Context) (string, error) {
			ctx, cancel := timely(ctx, s.cfg.StartTimeout, "starting PostgreSQL")
			defer cancel()
			begin := time.Now()
			state, ran := "", false
			err := poll(ctx, "PostgreSQL answers", func(ctx context.Context) (bool, string, error) {
				var err error
				if state, err = s.roleNow(ctx); err == nil {
					return true, "", nil
				}
				pids, perr := processes(s.cfg.Data)
				switch {
				case perr != nil || len(pids) > 0:
					return false, err.Error(), nil // it is on its way
				case ran:
					return false, "", fmt.Errorf("starting PostgreSQL: it ended at once; %s has: %s", s.logFile(), lastLines(s.logFile()))
				}
				ran = true
				if _, err := s.runAs(ctx, c, own); err != nil {
					if pids, perr := processes(s.cfg.Data); perr != nil || len(pids) > 0 {
						return false, err.Error(), nil // somebody else was quicker
					}
					if own {
						err = fmt.Errorf("%w; %s has: %s", err, s.logFile(), lastLines(s.logFile()))
					}
					return false, "", err
				}
				return false, "", nil
			})
			if err != nil {
				return "", err
			}
			if !ran {
				return "it runs already, as " + state, nil
			}
			return fmt.Sprintf("it runs as %s after %s", state, time.Since(begin).Round(time.Millisecond)), nil
		},
	}
}

// roleNow connects and asks: primary or standby.
func (s *Service) roleNow(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LookTimeout)
	defer cancel()
	state := "primary"
	err := s.withConn(ctx, func(c *pgx.Conn) error {
		var recovery bool
		var dir string
		if err := c.QueryRow(ctx, "SELECT pg_is_in_recovery(), current_setting('data_directory')").Scan(&recovery, &dir); err != nil {
			return err
		}
		if !sameFile(dir, s.cfg.Data) {
			return &wrongServerError{s.cfg.Socket + ":" + strconv.Itoa(int(s.cfg.Port)), dir, s.cfg.Data}
		}
		if recovery {
			state = "standby"
		}
		return nil
	})
	return state, err
}

// stepPromote makes a primary of a standby, once.
func (s *Service) stepPromote() role.Step {
	step := role.Step{Timeout: s.cfg.PromoteTimeout + 10*time.Second, Run: s.promote}
	switch s.cfg.Promote {
	case PromoteTrigger:
		step.Name, step.Detail = "promote trigger", "create "+s.cfg.TriggerFile+", and wait until recovery has ended"
	case PromoteCommand:
		step.Name, step.Detail = "promote command", s.cfg.PromoteCommand.String()+", and wait until recovery has ended"
	default:
		step.Name, step.Detail = "pg_promote()", "SELECT pg_promote(), and wait until recovery has ended"
	}
	return step
}

func (s *Service) promote(ctx context.Context) (string, error) {
	ctx, cancel := timely(ctx, s.cfg.PromoteTimeout, "promoting PostgreSQL")
	defer cancel()
	before := s.look(ctx)
	switch {
	case before.primary:
		return "it is primary already", nil
	case !before.recovery:
		return "", fmt.Errorf("promoting PostgreSQL: it is no standby that answers: %v", before.err)
	}
	err := s.withConn(ctx, func(c *pgx.Conn) (err error) {
		// A promotion that was asked for happens, whoever still wants it. So it is noted
		// first, and the service is not taken for a standby until its end was seen.
		if err := s.promoting(time.Now()); err != nil {
			return err
		}
		switch s.cfg.Promote {
		case PromoteTrigger:
			_, err = s.account.run(ctx, "touch", "--", s.cfg.TriggerFile)
		case PromoteCommand:
			_, err = s.cfg.PromoteCommand.Run(ctx)
		default:
			_, err = c.Exec(ctx, "SELECT pg_promote(false)")
			var e *pgconn.PgError
			if errors.As(err, &e) && e.Code == "55000" {
				err = nil // somebody else was quicker: "recovery is not in progress"
			}
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("promoting PostgreSQL: %w", err)
	}
	err = poll(ctx, "recovery has ended", func(ctx context.Context) (bool, string, error) {
		state, err := s.roleNow(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		return state == "primary", "it is in recovery", nil
	})
	if err != nil {
		return "", err
	}
	f := s.look(ctx) // it learns how the timeline began, which is on disk with what follows
	if err := s.promoting(time.Time{}); err != nil {
		return "", err
	}
	if !f.primary {
		return "", fmt.Errorf("promoting PostgreSQL: it was primary, and is not now: %v", f.err)
	}
	return fmt.Sprintf("timeline %d -> %d; before: received %s, replayed %s; now at %s", before.timeline, f.timeline,
		formatLSN(before.received), formatLSN(before.replayed), formatLSN(f.written)), nil
}

func orNothing(s *string) string {
	if s == nil {
		return "nothing"
	}
	return *s
}

// promoting notes on disk when a promotion was asked for; zero that there is none.
func (s *Service) promoting(at time.Time) error {
	s.mu.Lock()
	s.known.Promoting, s.dirty = at.Round(0), true
	s.mu.Unlock()
	return s.save(true)
}

// stepWritable waits until a new session can write, and undoes the read-only fence.
func (s *Service) stepWritable() role.Step {
	return role.Step{
		Name: "writable", Detail: "wait until new sessions can write; undo default_transaction_read_only if ALTER SYSTEM set it",
		Timeout: s.cfg.PromoteTimeout + 10*time.Second,
		Run:     s.writable,
	}
}

func (s *Service) writable(ctx context.Context) (string, error) {
	ctx, cancel := timely(ctx, s.cfg.PromoteTimeout, "waiting for PostgreSQL to be writable")
	defer cancel()
	detail := "new sessions can write"
	err := poll(ctx, "new sessions can write", func(ctx context.Context) (bool, string, error) {
		done, state := false, ""
		err := s.withConn(ctx, func(c *pgx.Conn) error {
			var recovery, readOnly bool
			var file, line *string
			err := c.QueryRow(ctx, `SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool, sourcefile, sourceline::text
				FROM pg_settings WHERE name = 'default_transaction_read_only'`).Scan(&recovery, &readOnly, &file, &line)
			switch {
			case err != nil:
				state = err.Error()
				return nil
			case recovery:
				state = "it is in recovery"
				return nil
			case !readOnly:
				done = true
				s.checkpoint(ctx, c)
				return nil
			}
			state = "default_transaction_read_only is on"
			if file != nil {
				if sameFile(*file, s.path(autoConf)) {
					detail = "the read-only fence is undone"
				} else {
					state += fmt.Sprintf(", by %s line %s", *file, orNothing(line))
				}
			}
			return execute(ctx, c, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
		})
		if err != nil && state == "" {
			state, err = err.Error(), nil // it may not be there yet
		}
		return done, state, err
	})
	if err != nil {
		return "", err
	}
	return detail, nil
}

// checkpoint has the first checkpoint on a new timeline made at once, and does not
// wait for it. Until then pg_rewind takes the old timeline for the server's (up to
// PostgreSQL 15), and finds nothing to rewind.
func (s *Service) checkpoint(ctx context.Context, c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	_, _ = c.Exec(ctx, "CHECKPOINT") // rejoin looks whether it was made
}

// execute runs statements outside of a transaction, one by one.
func execute(ctx context.Context, c *pgx.Conn, statements ...string) error {
	for _, sql := range statements {
		if _, err := c.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}
