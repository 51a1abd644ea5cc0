// EXPECT_MESSAGE(call, text): the call throws, and the message holds the text. Shared by the tests
// of this folder.
#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <functional>
#include <string>

inline std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

#define EXPECT_MESSAGE(call, text)                                           \
  EXPECT_NE(message_of([&] { (void)(call); }).find(text), std::string::npos) \
      << message_of([&] { (void)(call); })
