package postgres

import (
	"errors"
	"fmt"
	"strings"
)

// maxConninfo bounds a conninfo, in bytes.
const maxConninfo = 4096

// conninfo is a libpq connection string, taken apart, in its order.
type conninfo []setting

type setting struct{ key, value string }

// parseConninfo understands libpq's key=value form: values may be quoted with ', and \
// takes the meaning from the next byte.
func parseConninfo(s string) (conninfo, error) {
	if len(s) > maxConninfo {
		return nil, fmt.Errorf("it has %d bytes: at most %d are allowed", len(s), maxConninfo)
	}
	if strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://") {
		return nil, errors.New("it is a URI: write it as key=value, such as host=puppet-camaster.example.net user=replicator")
	}
	var c conninfo
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		key, rest, ok := strings.Cut(s, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" || strings.ContainsAny(key, " \t\n'\\") {
			return nil, fmt.Errorf("%q is no key=value", clip(s))
		}
		rest = strings.TrimLeft(rest, " \t\n")
		var v strings.Builder
		quoted := strings.HasPrefix(rest, "'")
		if quoted {
			rest = rest[1:]
		}
		i, closed := 0, false
		for ; i < len(rest); i++ {
			b := rest[i]
			if b == '\\' && i+1 < len(rest) {
				i++
				v.WriteByte(rest[i])
				continue
			}
			if quoted && b == '\'' {
				i, closed = i+1, true
				break
			}
			if !quoted && strings.IndexByte(" \t\n", b) >= 0 {
				break
			}
			v.WriteByte(b)
		}
		if quoted && !closed {
			return nil, fmt.Errorf("the value of %s has no closing quote", key)
		}
		if strings.ContainsAny(v.String(), "\x00\n\r") {
			return nil, fmt.Errorf("the value of %s has a line break or a null byte", key)
		}
		s = rest[i:]
		c = c.with(key, v.String())
	}
	return c, nil
}

// parseSource is parseConninfo for Config.Source, of which more is asked.
func parseSource(s string) (conninfo, error) {
	c, err := parseConninfo(s)
	if err != nil {
		return nil, err
	}
	if c.get("password") != "" {
		// The string gets into arguments, which all users of the host can read.
		return nil, errors.New("it has a password: put that in a file of the server's user, mode 0600, and name it by passfile=")
	}
	if c.get("host") == "" && c.get("hostaddr") == "" {
		return nil, errors.New("it has no host: it has to be like host=puppet-camaster.example.net user=replicator")
	}
	if c.get("user") == "" {
		return nil, errors.New("it has no user: it has to be a role with REPLICATION, such as user=replicator")
	}
	for _, key := range [...]string{"replication", "service", "servicefile", "options"} {
		if c.get(key) != "" {
			return nil, fmt.Errorf("it has %s: leave that out", key)
		}
	}
	return c, nil
}

// get is the value of a key; "" if it has none.
func (c conninfo) get(key string) string {
	for _, s := range c {
		if s.key == key {
			return s.value
		}
	}
	return ""
}

// with is c with another value.
func (c conninfo) with(key, value string) conninfo {
	c = c.without(key)
	return append(c, setting{key, value})
}

// without is c less some keys.
func (c conninfo) without(keys ...string) conninfo {
	var out conninfo
next:
	for _, s := range c {
		for _, k := range keys {
			if s.key == k {
				continue next
			}
		}
		out = append(out, s)
	}
	return out
}

// String is c as libpq reads it.
func (c conninfo) String() string {
	words := make([]string, len(c))
	for i, s := range c {
		v := s.value
		if v == "" || strings.ContainsAny(v, " \t'\\=") {
			v = "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
		}
		words[i] = s.key + "=" + v
	}
	return strings.Join(words, " ")
}

// clip is the beginning of s, for an error.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
