// Package jinja renders chat templates: Jinja2 as transformers sets it up (a sandbox whose values cannot be changed, trim_blocks, lstrip_blocks,
// break and continue, {% generation %}), with the values and the methods of Python that templates use.
//
// A template comes with a model and is not to be trusted. It sees the values it was given and nothing else, and Limits bound its steps, what it
// prints, what it builds and how deep it nests, so that rendering ends early whatever it says. There is nothing to load: extends, include and
// import are refused. Values never change, a namespace's attributes excepted, so one Template may be rendered by several goroutines.
package jinja
