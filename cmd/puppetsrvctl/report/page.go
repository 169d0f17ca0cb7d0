// Package report turns the API's types into text for people: what puppetsrvctl
// prints with -o table. Everything in it is pure: types and a [Page] in, text out.
//
// It never asks a server, reads a clock or looks at a terminal.
package report

import (
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"
)

// style is an SGR sequence (ECMA-48, 8.3.117).
type style string

const (
	plain style = ""
	bold  style = "\x1b[1m"
	dim   style = "\x1b[2m"
	red   style = "\x1b[31m"
	green style = "\x1b[32m"
	amber style = "\x1b[33m"
	reset       = "\x1b[0m"
)

// cell is one field of a table.
type cell struct {
	text  string
	style style
}

func text(s string) cell { return cell{text: clean(s)} }

// or is s, or a dash where there is nothing: an empty field in the middle of a row
// would read as the next one.
func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// clean takes out what could act on a terminal. Reasons and details come from
// other people and from the network.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// host is a host name as people write it.
func host(name string) string { return clean(strings.TrimSuffix(name, ".")) }

// table lays rows out in columns. Nothing is cut: what a narrow terminal breaks can
// still be read.
func (p Page) table(indent string, header []string, rows [][]cell) string {
	head := make([]cell, len(header))
	for i, h := range header {
		head[i] = cell{h, bold}
	}
	rows = append([][]cell{head}, rows...)

	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, c := range row {
			if i > 0 {
				w.Write([]byte("\t"))
			}
			w.Write([]byte(c.text))
		}
		w.Write([]byte("\n"))
	}
	w.Flush()

	// Colours come after the layout: tabwriter would count them as width.
	var out strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		line = indent + strings.TrimRight(line, " ")
		out.WriteString(p.paintRow(line, rows[i]))
		out.WriteByte('\n')
	}
	return out.String()
}

// paintRow colours the cells of a laid out line. Between the end of one cell and
// the beginning of the next there are spaces only, so the first match is the cell.
func (p Page) paintRow(line string, row []cell) string {
	if !p.Colour {
		return line
	}
	var out strings.Builder
	for _, c := range row {
		at := strings.Index(line, c.text)
		if c.text == "" || at < 0 {
			continue
		}
		out.WriteString(line[:at])
		out.WriteString(p.paint(c.text, c.style))
		line = line[at+len(c.text):]
	}
	return out.String() + line
}

// paint colours text where the page has colours.
func (p Page) paint(text string, s style) string {
	if !p.Colour || s == plain {
		return text
	}
	return string(s) + text + reset
}

// wrap is text behind a prefix, broken between words at the page's width; further
// lines are indented below the text.
func (p Page) wrap(prefix, text string) string {
	margin := utf8.RuneCountInString(prefix)
	var b strings.Builder
	b.WriteString(prefix)
	at := margin
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case p.Width > 0 && at+1+n > p.Width:
			b.WriteString("\n" + strings.Repeat(" ", margin))
			at = margin
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return strings.TrimRight(b.String(), " ") + "\n"
}

// wrapPainted is wrap, with the first word after the prefix coloured.
func (p Page) wrapPainted(prefix, word string, s style, rest string) string {
	block := p.wrap(prefix, word+rest)
	if !p.Colour || !strings.HasPrefix(block[len(prefix):], word) {
		return block
	}
	return prefix + p.paint(word, s) + block[len(prefix)+len(word):]
}
