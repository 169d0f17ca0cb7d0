package postgres

import (
	"fmt"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/role"
)

// manual is what people have to do where nothing overwrites data by itself. The server
// is stopped and guarded before.
func (s *Service) manual(f *facts, spoiled bool) error {
	why := "postgresql has to be made a standby again"
	switch {
	case spoiled:
		why += ": pg_rewind was cut off, and what it left is of no use"
		return &ManualError{why, s.backupCommands(true, f.stopped)}
	case f.diverged && f.fork.Timeline == 0:
		return &ManualError{why + ": its history has nothing in common with the source's", s.backupCommands(true, f.stopped)}
	case f.diverged:
		why += ": " + f.divergence()
	}
	if f.twin {
		return &ManualError{why + "; pg_rewind takes them for one", s.backupCommands(true, f.stopped)}
	}
	if f.control != nil && !f.control.hints {
		return &ManualError{why + "; pg_rewind needs wal_log_hints = on or data checksums, which it has not", s.backupCommands(true, f.stopped)}
	}
	commands := []string{
		"# What is here and not at the source is lost, but for the copy of its log.",
	}
	commands = append(commands, s.stopLine(f.stopped)...)
	commands = append(commands,
		s.as("cp", "-a", s.path("pg_wal"), s.asideLog("REWIND")),
		s.as("mkdir", "-m", "700", s.configDir()),
		s.as("sh", "-c", fmt.Sprintf("cp -a %s/*.conf %s/", role.Command{s.cfg.Data}, role.Command{s.configDir()})),
		s.as(s.rewindCommand(false)...),
		s.as("sh", "-c", fmt.Sprintf("cp -a %s/*.conf %s/", role.Command{s.configDir()}, role.Command{s.cfg.Data})),
		s.as("rm", "-r", s.configDir()),
	)
	commands = append(commands, s.followLines()...)
	commands = append(commands, "# or, if pg_rewind says that it cannot:")
	return &ManualError{why, append(commands, s.backupCommands(true, f.stopped)...)}
}

// backupCommands make a standby from nothing; old says that there is a directory to be
// kept, and stopped that its server is.
func (s *Service) backupCommands(old, stopped bool) []string {
	commands := s.stopLine(stopped)
	commands = append(commands, s.as(s.backupCommand()...))
	if old {
		commands = append(commands,
			s.as("sh", "-c", fmt.Sprintf("cp -a %s/*.conf %s/", role.Command{s.cfg.Data}, role.Command{s.newDir()})),
			s.as("mv", s.cfg.Data, s.aside("BACKUP")))
	}
	return append(append(commands, s.as("mv", s.newDir(), s.cfg.Data)), s.followLines()...)
}

func (s *Service) stopLine(stopped bool) []string {
	c, own := s.stopCommand()
	if stopped {
		return nil
	}
	if own {
		return []string{s.as(c...)}
	}
	return []string{c.String()}
}

func (s *Service) followLines() []string {
	line := strings.TrimSuffix(withConninfo("", s.primaryConninfo()), "\n")
	start, own := s.startCommand()
	run := start.String()
	if own {
		run = s.as(start...)
	}
	return []string{
		fmt.Sprintf(`printf '%%s\n' %s | %s`, role.Command{line}, s.as("tee", "-a", s.path(autoConf))),
		s.as("touch", s.path(standbySignal)),
		run,
	}
}

// as is a command line of the server's user.
func (s *Service) as(argv ...string) string {
	c := role.Command(argv)
	if s.account.credential == nil {
		return c.String()
	}
	return "runuser -u " + s.account.name + " -- " + c.String()
}
