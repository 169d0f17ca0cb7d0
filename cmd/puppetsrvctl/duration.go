package main

import (
	"fmt"
	"time"
)

// duration is a flag's duration, never negative. It exists for its error, which
// says what would be right.
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed < 0 {
		return fmt.Errorf("want a duration such as 30s, 30m or 12h, not %q", text)
	}
	*d = duration(parsed)
	return nil
}
