package settings

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// read sets *to from a key that the file has. What parse returns as an error is told
// with the key's line; *to then stays as it was.
func read[T any](m *mapping, key string, to *T, parse func(string) (T, error)) {
	n := m.take(key)
	if n == nil {
		return
	}
	text, ok := m.r.scalar(m.join(key), n)
	if !ok {
		return
	}
	v, err := parse(text)
	if err != nil {
		m.errf(key, "%s", err)
		return
	}
	*to = v
}

// readList is read for a list of single values, none of which may be there twice.
func readList[T comparable](m *mapping, key, like string, to *[]T, parse func(string) (T, error)) {
	var list []T
	for i, n := range m.items(key, like) {
		path := fmt.Sprintf("%s[%d]", m.join(key), i)
		text, ok := m.r.scalar(path, n)
		if !ok {
			continue
		}
		v, err := parse(text)
		switch {
		case err != nil:
			m.r.errf(line(n), path, "%s", err)
		case slices.Contains(list, v):
			m.r.errf(line(n), path, "%v is there twice", v)
		default:
			list = append(list, v)
		}
	}
	if m.has(key) {
		*to = list
	}
}

// commandLike is what a command looks like.
const commandLike = "its words as a list, as [systemctl, restart, puppetserver]; no shell reads it, but [sh, -c, \"...\"] is allowed"

// readCommand reads a program with its arguments.
func readCommand(m *mapping, key string, to *[]string) {
	if n := m.take(key); n != nil {
		if c := m.r.command(m.join(key), n); c != nil {
			*to = c
		}
	}
}

func (r *reader) command(path string, n ast.Node) []string {
	before := len(r.errors)
	items := r.items(path, n, commandLike)
	var words []string
	for i, item := range items {
		switch s := item.(type) {
		case *ast.StringNode: // "" is an argument
			words = append(words, s.Value)
			continue
		case *ast.LiteralNode:
			words = append(words, s.Value.Value)
			continue
		}
		if word, ok := r.scalar(fmt.Sprintf("%s[%d]", path, i), item); ok {
			words = append(words, word)
		}
	}
	if len(r.errors) > before {
		return nil
	}
	switch {
	case len(words) == 0:
		r.errf(line(n), path, "no command: write %s", commandLike)
	case slices.ContainsFunc(words, func(w string) bool { return len(w) > maxText || strings.ContainsRune(w, 0) }):
		r.errf(line(n), path, "a word with a zero byte, or of more than %d bytes", maxText)
	case words[0] == "" || strings.ContainsAny(words[0], " \t\n"):
		r.errf(line(n), path, "%q is no program: write %s", clip(words[0]), commandLike)
	case strings.Contains(words[0], "/") && !filepath.IsAbs(words[0]):
		r.errf(line(n), path, "%q: write the program's absolute path, or its name alone to have it looked for in PATH", clip(words[0]))
	default:
		return words
	}
	return nil
}

// readCommands reads a list of commands.
func readCommands(m *mapping, key string, to *[][]string) {
	const like = "a list of commands, as [[systemctl, reload, apache2]]"
	for i, n := range m.items(key, like) {
		path := fmt.Sprintf("%s[%d]", m.join(key), i)
		if _, isList := n.(*ast.SequenceNode); !isList && m.r.plain(path, n) {
			m.r.errf(line(n), path, "%s is no command: write %s", describe(n), like)
			continue
		}
		if c := m.r.command(path, n); c != nil {
			*to = append(*to, c)
		}
	}
}

// hostName is a name as DNS and Puppet's certificates have it.
func hostName(s string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	wrong := func(why string) (string, error) {
		return "", fmt.Errorf("%q is no host name: %s", clip(s), why)
	}
	if name == "" || len(name) > 253 {
		return wrong("it has 1 to 253 characters")
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return wrong("it is an address; certificates have names")
	}
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > 63 {
			return wrong("each part between dots has 1 to 63 characters")
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return wrong(fmt.Sprintf("%q in it", c))
			}
		}
	}
	return name, nil
}

// word is a short plain name.
func word(s string) (string, error) {
	if len(s) > 63 {
		return "", fmt.Errorf("%q: at most 63 characters", clip(s))
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.", c) {
			return "", fmt.Errorf("%q: write letters, digits, - and _", clip(s))
		}
	}
	return s, nil
}

// absolute is a path that does not depend on where the member was started.
func absolute(s string) (string, error) {
	if !filepath.IsAbs(s) {
		return "", fmt.Errorf("%q: write an absolute path", clip(s))
	}
	return filepath.Clean(s), nil
}

// number allows whole numbers of a range.
func number(least, most int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("%q: a whole number from %d to %d", clip(s), least, most)
		}
		return n, nil
	}
}

func truth(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%q: true or false", clip(s))
}

// oneOf allows some words.
func oneOf[T ~string](words ...T) func(string) (T, error) {
	return func(s string) (T, error) {
		if slices.Contains(words, T(s)) {
			return T(s), nil
		}
		all := make([]string, len(words))
		for i, w := range words {
			all[i] = string(w)
		}
		last := len(all) - 1
		return "", fmt.Errorf("%q: %s or %s", clip(s), strings.Join(all[:last], ", "), all[last])
	}
}

// duration allows times of a range.
func duration(least, most time.Duration) func(string) (time.Duration, error) {
	return func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil || d < least || d > most {
			return 0, fmt.Errorf("%q: a time with its unit, as 500ms, 30s or 2m, from %s to %s", clip(s), plainTime(least), plainTime(most))
		}
		return d, nil
	}
}

// plainTime is a duration without the zeros of time.Duration's own form.
func plainTime(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// units are those of sizes. PostgreSQL's MB is what others call MiB, and a bound on
// what is lost is no place to guess.
var units = []struct {
	name  string
	bytes uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}}

// size allows bytes of a range.
func size(least, most uint64) func(string) (uint64, error) {
	return func(s string) (uint64, error) {
		digits, factor := s, uint64(1)
		for _, u := range units {
			if rest, ok := strings.CutSuffix(s, u.name); ok {
				digits, factor = strings.TrimRight(rest, " "), u.bytes
				break
			}
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || n > math.MaxUint64/factor || n*factor < least || n*factor > most {
			return 0, fmt.Errorf("%q: bytes, or a whole number of KiB, MiB or GiB, from %s to %s", clip(s), plainSize(least), plainSize(most))
		}
		return n * factor, nil
	}
}

func plainSize(n uint64) string {
	for i := 3; i >= 0; i-- {
		if u := units[i]; n >= u.bytes && n%u.bytes == 0 {
			return fmt.Sprintf("%d%s", n/u.bytes, u.name)
		}
	}
	return strconv.FormatUint(n, 10)
}

// addrPort allows IP and IP:PORT.
func addrPort(port uint16) func(string) (netip.AddrPort, error) {
	return func(s string) (netip.AddrPort, error) {
		if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && a.Zone() == "" {
			return netip.AddrPortFrom(a.Unmap(), port), nil
		}
		a, err := netip.ParseAddrPort(s)
		if err != nil || a.Port() == 0 || a.Addr().Zone() != "" {
			return netip.AddrPort{}, fmt.Errorf("%q: an IP address of this host, with a port if it is not %d: 192.0.2.11:%[2]d, or \"[2001:db8::11]:%[2]d\"", clip(s), port)
		}
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
	}
}

// seed allows HOST and HOST:PORT.
func seed(s string) (string, error) {
	host, port := s, ""
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, port = h, p
	}
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n < 1 || n > 65535) {
		return "", fmt.Errorf("%q: its port is a whole number from 1 to 65535", clip(s))
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return s, nil
	}
	name, err := hostName(host)
	if err != nil || port == "" {
		return name, err
	}
	return net.JoinHostPort(name, port), nil
}

// address allows the URL of a local service, of which a path is asked.
func address(s string) (string, error) {
	u, err := url.Parse(s)
	wrong := func() (string, error) {
		return "", fmt.Errorf("%q: write https://HOST:PORT and no more", clip(s))
	}
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return wrong()
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return wrong()
		}
	}
	ip, err := netip.ParseAddr(u.Hostname())
	local := err == nil && ip.IsLoopback() || u.Hostname() == "localhost"
	switch {
	case u.Scheme == "http" && !local:
		return "", fmt.Errorf("%q: without TLS only on this very host, as http://localhost:8080; write https://", clip(s))
	case u.Scheme != "http" && u.Scheme != "https":
		return wrong()
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}
