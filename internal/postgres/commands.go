package postgres

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/role"
)

// logFile is where a server that pg_ctl started writes until it has a log of its own.
// It is beside the data directory, as copies of that need no log.
func (s *Service) logFile() string { return filepath.Clean(s.cfg.Data) + ".log" }

// pgctl is a pg_ctl command line.
func (s *Service) pgctl(verb string, wait time.Duration, args ...string) role.Command {
	c := role.Command{filepath.Join(s.cfg.BinDir, "pg_ctl"), verb, "-D", s.cfg.Data, "-s"}
	if wait > 0 {
		c = append(c, "-w", "-t", strconv.Itoa(max(1, int(wait.Seconds()))))
	} else {
		c = append(c, "-W")
	}
	return append(c, args...)
}

// options are a server's, for pg_ctl's -o, which a shell takes apart.
func (s *Service) options(settings ...setting) []string {
	if s.cfg.ConfigDir != "" {
		settings = append([]setting{{"config_file", filepath.Join(s.cfg.ConfigDir, "postgresql.conf")}}, settings...)
	}
	if len(settings) == 0 {
		return nil
	}
	words := make([]string, 0, 2*len(settings))
	for _, o := range settings {
		words = append(words, "-c", "'"+strings.ReplaceAll(o.key+"="+o.value, "'", `'\''`)+"'")
	}
	return []string{"-o", strings.Join(words, " ")}
}

// startCommand starts the server; own says that it is to run as the server's user.
func (s *Service) startCommand() (c role.Command, own bool) {
	if len(s.cfg.Start) > 0 {
		return s.cfg.Start, false
	}
	return s.pgctl("start", s.cfg.StartTimeout, append([]string{"-l", s.logFile()}, s.options()...)...), true
}

// stopCommand stops it fast.
func (s *Service) stopCommand() (c role.Command, own bool) {
	if len(s.cfg.Stop) > 0 {
		return s.cfg.Stop, false
	}
	return s.fastStop(), true
}

func (s *Service) fastStop() role.Command {
	return s.pgctl("stop", s.cfg.StopTimeout, "-m", "fast")
}

// runAs runs a command as the server's user or as this process's.
func (s *Service) runAs(ctx context.Context, c role.Command, own bool) (string, error) {
	if own {
		return s.account.run(ctx, c...)
	}
	return c.Run(ctx)
}

// timely is ctx with a bound.
func timely(ctx context.Context, d time.Duration, what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("%s took longer than %s", what, d))
}
