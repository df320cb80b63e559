from django.urls import path

from . import views

urlpatterns = [
    path("", views.index),
    path("healthz", views.healthz),
    path("whoami", views.whoami),
    path("login", views.log_in),
    path("books", views.note),
    path("logout", views.log_out),
]
