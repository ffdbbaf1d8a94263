package main

import (
	"errors"
	"regexp"
	"slices"
	"strings"
)

// page is one command.
type page struct {
	path        []string // the program, and the command's words
	version     string
	short       string // what stands behind the name
	synopsis    []string
	description []string // paragraphs; one that begins with a space is shown as it is
	commands    []item
	options     []item
	inherited   []item
	examples    []string
	exit        string
	also        []string // names of other pages
}

// item is a command or an option with its words.
type item struct{ name, text string }

var (
	spaces    = regexp.MustCompile(`\s{2,}`)
	exitWords = regexp.MustCompile(`(?s)Exit (?:codes|status): (.*)$`)
)

// ownCommands of cobra are in every program and say nothing about ours.
var ownCommands = []string{"completion", "help"}

// parse reads one help text.
func parse(path []string, help string) (*page, error) {
	p := &page{path: path}
	head, rest, found := strings.Cut(help, "\nUsage:\n")
	if strings.HasPrefix(help, "Usage:\n") {
		head, rest, found = "", strings.TrimPrefix(help, "Usage:\n"), true
	}
	var err error
	if found {
		err = p.cobra(rest)
	} else {
		head, err = p.flags(help)
	}
	if err != nil {
		return nil, err
	}
	p.describe(head)
	if p.short == "" || len(p.synopsis) == 0 {
		return nil, errors.New("this help says neither what the command does nor how it is used")
	}
	return p, nil
}

// cobra reads what follows "Usage:".
func (p *page) cobra(text string) error {
	section := "Usage"
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if name, ok := strings.CutSuffix(line, ":"); ok && !strings.HasPrefix(line, " ") {
			section = name
			continue
		}
		if strings.HasPrefix(line, "Use \"") || line == "" && section != "Examples" {
			continue
		}
		switch section {
		case "Usage":
			p.synopsis = append(p.synopsis, strings.TrimSpace(line))
		case "Examples":
			p.examples = append(p.examples, strings.TrimPrefix(line, "  "))
		case "Available Commands":
			i := split(line)
			if !slices.Contains(ownCommands, i.name) {
				p.commands = append(p.commands, i)
			}
		case "Flags":
			p.options = more(p.options, line)
		case "Global Flags":
			p.inherited = more(p.inherited, line)
		default:
			return errors.New("unknown part of the help: " + section)
		}
	}
	p.examples = trim(p.examples)
	return nil
}

// more appends an option, or the rest of one whose words take several lines.
func more(list []item, line string) []item {
	if t := strings.TrimSpace(line); !strings.HasPrefix(t, "-") && len(list) > 0 {
		list[len(list)-1].text += " " + t
		return list
	}
	return append(list, split(line))
}

func split(line string) item {
	parts := spaces.Split(strings.TrimSpace(line), 2)
	if len(parts) < 2 {
		return item{name: parts[0]}
	}
	return item{parts[0], parts[1]}
}

// flags reads the help of package flag: words, indented calls, "Options:" and for each option a line and its words.
func (p *page) flags(help string) (head string, err error) {
	head, options, found := strings.Cut(help, "\nOptions:\n")
	if !found {
		return "", errors.New("neither Usage nor Options in this help")
	}
	p.synopsis = []string{p.path[0] + " [options]"}
	var words []string
	for line := range strings.Lines(head) {
		line = strings.TrimRight(line, "\n")
		if call, ok := strings.CutPrefix(line, "  "); ok {
			p.examples = append(p.examples, call)
			continue
		}
		words = append(words, line)
	}
	for line := range strings.Lines(options) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "  -"):
			name, text, _ := strings.Cut(strings.TrimSpace(line), "\t")
			p.options = append(p.options, item{"-" + name, text})
		case line != "" && len(p.options) > 0:
			last := &p.options[len(p.options)-1]
			last.text = strings.TrimSpace(last.text + " " + strings.TrimSpace(line))
		}
	}
	return strings.Join(words, "\n"), nil
}

// describe makes paragraphs of the words before the usage, and takes the exit status out of them.
func (p *page) describe(head string) {
	for block := range strings.SplitSeq(strings.Trim(head, "\n"), "\n\n") {
		block = strings.Trim(block, "\n")
		if m := exitWords.FindStringSubmatch(block); m != nil && p.exit == "" {
			p.exit = join(m[1])
			block = strings.TrimSpace(block[:len(block)-len(m[0])])
		}
		if block == "" {
			continue
		}
		p.description = append(p.description, paragraphs(block)...)
	}
	if len(p.description) > 0 {
		first := p.description[0]
		if i := strings.Index(first, ". "); i > 0 {
			first = first[:i]
		}
		first = strings.TrimPrefix(first, p.path[len(p.path)-1]+" ")
		p.short = strings.TrimSuffix(first, ".")
	}
}

// paragraphs keeps indented lines apart: they are to be read as they stand.
func paragraphs(block string) []string {
	var out []string
	for line := range strings.Lines(block) {
		line = strings.TrimRight(line, "\n")
		last := len(out) - 1
		indented := strings.HasPrefix(line, "  ")
		switch {
		case last >= 0 && strings.HasPrefix(out[last], "  ") == indented && indented:
			out[last] += "\n" + line
		case last >= 0 && strings.HasPrefix(out[last], "  ") == indented:
			out[last] += " " + line
		default:
			out = append(out, line)
		}
	}
	return out
}

func join(s string) string { return strings.Join(strings.Fields(s), " ") }

// trim drops empty lines at both ends.
func trim(lines []string) []string {
	for len(lines) > 0 && lines[0] == "" {
		lines = lines[1:]
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// name is the page's name: the command's words joined.
func (p *page) name() string { return strings.Join(p.path, "-") }

func (p *page) file() string { return p.name() + ".1" }

// link lists the command above and those below.
func (p *page) link(all []*page) {
	for _, o := range all {
		above := len(o.path) == len(p.path)-1 && slices.Equal(o.path, p.path[:len(o.path)])
		below := len(o.path) == len(p.path)+1 && slices.Equal(p.path, o.path[:len(p.path)])
		if above || below {
			p.also = append(p.also, o.name())
		}
	}
}
