#pragma once

// Parts of the program; each prints a line of JSON for every check, and gives whether all are
// right.

bool descriptors();
bool shapes();
bool small_shape();
void speed();
