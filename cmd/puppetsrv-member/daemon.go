package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/puppetsrv/puppetsrv/internal/member"
	"github.com/puppetsrv/puppetsrv/internal/release"
	"github.com/puppetsrv/puppetsrv/internal/settings"
)

type runCommand struct {
	Debug bool `help:"Log more."`
}

func (c runCommand) Run(e *environment) error {
	s, err := e.settings()
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if c.Debug {
		level = slog.LevelDebug
	}
	options := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" { // the journal has the time
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	logger := slog.New(slog.NewTextHandler(e.errout, options))
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	m, err := member.Start(member.Config{Settings: s, Release: release.Version, Log: logger})
	if err != nil {
		return err
	}
	logger.Info("member of the cluster", "certname", s.Certname, "gossip", s.Gossip.Bind, "listen", s.Listen, "version", release.Version)
	// Ready when whatever was found open and must not be is closed: units that wait
	// for this one start into a host that cannot write. But not much later: what closes a
	// service may be a restart of such a unit. The gates hold them as long as needed.
	select {
	case <-m.Decided():
	case <-time.After(readyWithin):
	case <-e.ctx.Done():
	}
	notify(logger, daemon.SdNotifyReady)
	watch, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		logger.Warn("systemd's watchdog", "error", err)
	}
	var alive <-chan time.Time
	if watch > 0 {
		t := time.NewTicker(watch / 3)
		defer t.Stop()
		alive = t.C
	}
	for {
		select {
		case <-e.ctx.Done():
			notify(logger, daemon.SdNotifyStopping)
			m.Close()
			return nil
		case <-m.Left():
			notify(logger, daemon.SdNotifyStopping)
			m.Leave()
			return nil
		case <-alive:
			if m.Alive() {
				notify(logger, daemon.SdNotifyWatchdog)
			}
		case <-hup:
			notify(logger, daemon.SdNotifyReloading)
			reload(e.ctx, logger, m, e.config)
			notify(logger, daemon.SdNotifyReady)
		}
	}
}

// readyWithin is how long other units wait for the role at a start, at most.
const readyWithin = 5 * time.Second

// reload reads the file again. A mistake in it changes nothing.
func reload(_ context.Context, logger *slog.Logger, m *member.Member, path string) {
	s, err := settings.Load(path)
	if err == nil {
		err = m.Reload(s)
	}
	if err != nil {
		logger.Error("not reloaded, everything is as before", "error", err)
		return
	}
	logger.Info("reloaded", "file", path)
}

func notify(logger *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.Warn("telling systemd", "state", state, "error", err)
	}
}
