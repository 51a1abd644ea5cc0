// The file that the precompiled torch header belongs to (see cmake/QcdqOptions.cmake); it holds
// nothing itself.
