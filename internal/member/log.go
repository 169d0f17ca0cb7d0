package member

import (
	"context"
	"fmt"
	"log/slog"
)

// Logger is what the packages below want of a log.
type Logger interface {
	Debugf(format string, v ...any)
	Infof(format string, v ...any)
	Warningf(format string, v ...any)
	Errorf(format string, v ...any)
}

// lines writes them to a slog.Logger.
type lines struct{ log *slog.Logger }

func (l lines) say(level slog.Level, format string, v []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, fmt.Sprintf(format, v...))
	}
}

func (l lines) Debugf(format string, v ...any)   { l.say(slog.LevelDebug, format, v) }
func (l lines) Infof(format string, v ...any)    { l.say(slog.LevelInfo, format, v) }
func (l lines) Warningf(format string, v ...any) { l.say(slog.LevelWarn, format, v) }
func (l lines) Errorf(format string, v ...any)   { l.say(slog.LevelError, format, v) }
