package main

import (
	"github.com/alcove-room/alcove/provisioning/hub"
	"github.com/alcove-room/alcove/provisioning/web"
)

// page is the call page, when the hub serves it.
func page(c hub.Config) (hub.Page, error) {
	if c.Page.Listen == "" {
		return hub.Page{}, nil
	}
	files, err := web.Call()
	if err != nil {
		return hub.Page{}, err
	}
	return hub.Page{Files: files, Header: web.Header}, nil
}
