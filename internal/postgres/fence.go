package postgres

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// killWait is for how long processes that were killed are waited for.
const killWait = 10 * time.Second

// planClosed is Plan's for closed.
func (s *Service) planClosed(f *facts) ([]role.Step, error) {
	switch {
	case f.stopped && (f.guarded || f.noData):
		return nil, nil
	case f.stopped:
		return []role.Step{s.stepGuard()}, nil
	case f.recovery && !f.promoting && !f.restore:
		if !f.guarded {
			return []role.Step{s.stepGuard()}, nil // or its next start would be as a primary
		}
		return nil, nil
	case f.primary && s.cfg.Fence == FenceReadOnly:
		if f.readOnly {
			return nil, nil
		}
		return []role.Step{s.stepReadOnly(), s.stepSessions()}, nil
	}
	return []role.Step{s.stepStop(), s.stepGuard()}, nil
}

// stepGuard is Guard as a step.
func (s *Service) stepGuard() role.Step {
	return role.Step{
		Name: standbySignal, Detail: "put " + standbySignal + " into " + s.cfg.Data + ", so that the server is read-only whoever starts it", Timeout: time.Minute,
		Run: func(context.Context) (string, error) { return "it is there", s.Guard() },
	}
}

// stepStop stops the server, whatever it takes: fast, which lets no session write any
// more, sends all that was written to the standbys that are connected, and waits up to
// wal_sender_timeout for one that does not answer; then immediate; then SIGKILL to each
// process of it. It is done when no process has the data directory.
func (s *Service) stepStop() role.Step {
	c, _ := s.stopCommand()
	return role.Step{
		Name: "stop", Detail: c.String() + "; immediately if that takes longer than " + s.cfg.StopTimeout.String(),
		Timeout: 2*s.cfg.StopTimeout + 3*killWait,
		Run:     s.stop,
	}
}

func (s *Service) stop(ctx context.Context) (string, error) {
	// The guard comes first, so that a server that somebody starts again at once is
	// read-only. If it fails, it must not keep the server from being stopped; it is
	// tried again by its own step, which says why.
	_ = s.Guard()
	begin := time.Now()
	configured, own := s.stopCommand()
	type way struct {
		c     role.Command
		own   bool
		bound time.Duration
	}
	ways := []way{{configured, own, s.cfg.StopTimeout}}
	if !own { // a service manager knows nothing of a server that it did not start
		ways = append(ways, way{s.fastStop(), true, s.cfg.StopTimeout})
	}
	ways = append(ways, way{s.pgctl("stop", killWait/2, "-m", "immediate"), true, killWait})
	var failed error
	for i, w := range ways {
		pids, err := processes(s.cfg.Data)
		if err != nil {
			return "", fmt.Errorf("stopping PostgreSQL: %w", err)
		}
		// A service manager also has to know that it is to be stopped, if it is.
		if len(pids) == 0 && (i > 0 || own) {
			break
		}
		if err := func() error {
			ctx, cancel := timely(ctx, w.bound+time.Second, "stopping PostgreSQL")
			defer cancel()
			_, err := s.runAs(ctx, w.c, w.own)
			return err
		}(); err != nil {
			failed = errors.Join(failed, err)
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("stopping PostgreSQL: %w", context.Cause(ctx))
		}
	}
	var killed []int
	kctx, cancel := timely(ctx, killWait, "killing PostgreSQL's processes")
	defer cancel()
	err := poll(kctx, "no process has the data directory", func(context.Context) (bool, string, error) {
		pids, err := processes(s.cfg.Data)
		if err != nil {
			return false, "", err
		}
		if len(pids) > 0 && (time.Since(begin) > s.cfg.StopTimeout || failed != nil) {
			killed = append(killed, pids...)
			err = kill(pids)
		}
		// Until its parent has seen that it ended, the next start takes it for a server.
		if len(pids) == 0 && (time.Since(begin) > s.cfg.StopTimeout+2*killWait || !slices.ContainsFunc(killed, alive)) {
			return true, "", nil
		}
		return false, fmt.Sprintf("processes %v", pids), err
	})
	if err != nil {
		return "", errors.Join(err, failed)
	}
	took := time.Since(begin).Round(time.Millisecond)
	f := &facts{}
	s.lookStopped(ctx, f)
	switch {
	case f.control == nil:
		return fmt.Sprintf("no process has the data directory, after %s; %v", took, f.err), nil
	case f.control.clean():
		end, timeline := f.control.end()
		return fmt.Sprintf("%s after %s, at %s", f.control.state, took, position(end, timeline)), nil
	case len(killed) > 0:
		return fmt.Sprintf("killed after %s: where its log ends is not known", took), nil
	}
	return fmt.Sprintf("stopped, not cleanly (%s), after %s: where its log ends is not known", f.control.state, took), nil
}

// stepReadOnly is the first half of the read-only fence. It is a fence for clients that
// do as they are told: SET default_transaction_read_only = off, or a setting of a role
// or database, lets a session write. FenceStop is the default for that.
func (s *Service) stepReadOnly() role.Step {
	return role.Step{
		Name: "default_transaction_read_only", Detail: "ALTER SYSTEM SET default_transaction_read_only = on, and reload", Timeout: s.cfg.PromoteTimeout,
		Run: func(ctx context.Context) (string, error) {
			err := s.withConn(ctx, func(c *pgx.Conn) error {
				return execute(ctx, c, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
			})
			if err != nil {
				return "", fmt.Errorf("fencing PostgreSQL: %w", err)
			}
			return "new sessions read only", poll(ctx, "new sessions read only", func(ctx context.Context) (done bool, state string, err error) {
				err = s.withConn(ctx, func(c *pgx.Conn) error {
					return c.QueryRow(ctx, "SELECT current_setting('default_transaction_read_only')::bool").Scan(&done)
				})
				return done, "they write", err
			})
		},
	}
}

// stepSessions is the second half: no session goes on that is older than the first.
func (s *Service) stepSessions() role.Step {
	return role.Step{
		Name: "end sessions", Detail: "pg_terminate_backend() of all sessions", Timeout: s.cfg.PromoteTimeout,
		Run: func(ctx context.Context) (string, error) {
			ended := 0
			err := s.withConn(ctx, func(c *pgx.Conn) error {
				return poll(ctx, "older sessions have ended", func(ctx context.Context) (bool, string, error) {
					var n int
					err := c.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
						WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
						  AND backend_start < (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())`).Scan(&n)
					ended = max(ended, n)
					return n == 0 && err == nil, fmt.Sprintf("%d sessions", n), err
				})
			})
			if err != nil {
				return "", fmt.Errorf("ending sessions: %w", err)
			}
			return fmt.Sprintf("%d sessions were ended", ended), nil
		},
	}
}

// path is a file of the data directory.
func (s *Service) path(name string) string { return filepath.Join(s.cfg.Data, name) }
