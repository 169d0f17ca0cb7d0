package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"syscall"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/report"
	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// The exit codes. README.md and --help tell them; scripts rely on them.
const (
	exitDone        = 0
	exitFailed      = 1 // anything that has no code of its own
	exitUsage       = 2
	exitRefused     = 3
	exitIncomplete  = 4
	exitUnreachable = 5
	exitForbidden   = 6
	exitUnwell      = 7
	exitSignal      = 128 // plus the signal, as a shell has it: 130 for Ctrl-C
)

const exitCodes = `Exit codes:
  0    done
  1    any other error
  2    wrong usage; or no server or certificate was given, nor found
  3    refused: safety rules, another version than expected, not found
  4    the write stands, but not every node that was to be waited for has
       acknowledged it, or a node's DNS did not answer the new name in time, or
       a role is not open in time; the same command again goes on
  5    the server cannot be reached
  6    not allowed
  7    status --check: a problem of severity error, or the nodes disagree
  130  interrupted
`

// failure is an error with an exit code of its own.
type failure struct {
	code int
	text string
}

func (f *failure) Error() string { return f.text }

func fail(code int, format string, args ...any) error {
	return &failure{code, fmt.Sprintf(format, args...)}
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal syscall.Signal }

func (i *interrupted) Error() string { return "interrupted" }

// verdict is the exit code of an error, and what to tell of it, which may be
// nothing.
func verdict(ctx context.Context, err error) (code int, text string) {
	var (
		signal      *interrupted
		own         *failure
		fault       *admin.Fault
		unreachable *admin.UnreachableError
	)
	switch {
	case errors.As(context.Cause(ctx), &signal):
		// Whatever failed, failed because of this. Only a write is worth a word.
		if errors.As(err, &own) {
			text = own.text
		}
		return exitSignal + int(signal.signal), text
	case err == nil:
		return exitDone, ""
	case errors.As(err, &own):
		return own.code, own.text
	case errors.As(err, &fault):
		return faultCode(fault), report.Fault(fault)
	case errors.As(err, &unreachable):
		if errors.Is(err, fs.ErrPermission) {
			return exitForbidden, report.Clean(err.Error())
		}
		return exitUnreachable, report.Clean(err.Error())
	}
	return exitFailed, report.Clean(err.Error())
}

func faultCode(f *admin.Fault) int {
	switch f.Status {
	case http.StatusBadRequest: // a value that only the server can judge
		return exitUsage
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitForbidden
	case http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed, http.StatusUnprocessableEntity:
		return exitRefused
	}
	if len(f.Rules) > 0 {
		return exitRefused
	}
	return exitFailed
}

// complaint is the text of an error as it goes to stderr.
func complaint(text string) string {
	if text == "" {
		return ""
	}
	return "puppetsrvctl: " + strings.TrimSuffix(text, "\n") + "\n"
}
